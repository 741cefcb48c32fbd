"""Trains and scores the rows of a table and writes it; resumes if interrupted."""

from collections.abc import Iterator, Mapping, Sequence
import logging
import os

import numpy as np

from step_jax import config as config_lib
from step_jax import files, methods
from step_jax.data import contents, pipeline
from step_jax.errors import ConfigError
from step_jax.evaluate import results as results_lib
from step_jax.infer import gallery
from step_jax.reproduce import estimate, jobs, page
from step_jax.reproduce.jobs import Row, Table
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

# Images of the gallery: number of inputs, and number of styles for each input.
_INPUTS = 3
_STYLES = 3


def choose_rows(table: Table, settings: jobs.Settings, names: Sequence[str] = ()) -> list[Row]:
  """Selects the requested rows, without those whose data sets are missing.

  Args:
    table: one of `tables()`.
    settings: settings with the data sets.
    names: names of runs (`Row.run`) or presets; all rows by default.

  Raises:
    ConfigError: a name is unknown, or no rows are left.
  """
  row_names = {row.run for row in table.rows} | {row.preset for row in table.rows}
  for name in names:
    if name not in row_names:
      raise ConfigError(f'no row is called {name!r}; there are {", ".join(sorted(row_names))}')
  selected = [row for row in table.rows if not names or {row.run, row.preset} & set(names)]
  rows = jobs.with_sources(selected, settings)
  for missing in sorted({role for row in selected for role in row.needs} - set(settings.sources)):
    log.warning('rows that need the %s data set are left out: give --%s', missing, missing)
  if not rows:
    raise ConfigError('no row is left to train: give --related, or other --rows')
  return rows


def reproduce(
  name: str,
  settings: jobs.Settings,
  workdir: str | os.PathLike,
  rows: Sequence[str] = (),
) -> files.Path:
  """Trains, scores and writes a table; finished stages and scores in `workdir` are reused.

  Args:
    name: a key of `tables()`.
    settings: settings shared by all rows.
    workdir: work directory, with one run per row.
    rows: see `choose_rows`.

  Returns:
    Path of `table.html`, in the same folder as `table.md`, `table.json` and `gallery.png`. They are
    rewritten after each row.

  Raises:
    UserError: a row cannot be trained or scored, or no table has that name.
  """
  table = _table(name)
  workdir = files.path(workdir)
  selected = choose_rows(table, settings, rows)
  planned = jobs.make(table, settings, selected)
  for i, job in enumerate(planned):
    log.info('--- %d of %d: %s', i + 1, len(planned), job.folder)
    _take_files(workdir, job)
    methods.train(job.config, workdir / job.run)
  last = planned[-1]
  examples = _examples(workdir / last.folder, last.config)
  role = methods.of_stage(last.config.stage)[0].source_role
  lines = []
  for row in selected:
    lines.append(_line(table, row, settings, workdir, examples))
    facts = _facts(table, settings, lines)
    path = page.write(workdir, table.title, facts, lines, _header(role, examples))
  return path


def plan(
  name: str, settings: jobs.Settings, workdir: str | os.PathLike, rows: Sequence[str] = ()
) -> str:
  """Text with the stages that `reproduce` would train, and their estimated times."""
  table = _table(name)
  workdir = files.path(workdir)
  planned = jobs.make(table, settings, choose_rows(table, settings, rows))
  minutes = [seconds / 60 for seconds in estimate.seconds_left(planned, workdir)]
  lines = [
    f'{str(job.folder):<44} {stage_lib.num_steps(job.config):>8} steps {left:>8.1f} min'
    if 'total_kimg' in job.config.schedule
    else f'{str(job.folder):<44} {job.config.schedule.epochs:>8} epochs     < 1 min'
    for job, left in zip(planned, minutes, strict=True)
  ]
  total = sum(minutes)
  return '\n'.join(
    [
      table.title,
      *lines,
      f'about {total:.0f} min of training steps on this machine, estimated from their FLOPs and a '
      'small probe; compilation and scoring take additional time',
    ]
  )


def tables() -> dict[str, Table]:
  """Tables of all methods by name."""
  hooks = [method.hook('tables') or {} for method in methods.METHODS.values()]
  return {name: table for hook in hooks for name, table in hook.items()}


def _table(name: str) -> Table:
  all_tables = tables()
  if name not in all_tables:
    raise ConfigError(f'no table is called {name!r}; there are {", ".join(all_tables)}')
  return all_tables[name]


def _take_files(workdir: files.Path, job: jobs.Job) -> None:
  """Copies reusable files of another run; the stage checks whether they fit."""
  if not job.takes_from:
    return
  folder = workdir / job.folder
  files.make_folder(folder)
  for path in (workdir / job.takes_from / job.config.stage).glob(job.takes):
    if not (folder / path.name).exists():
      files.write_bytes(folder / path.name, path.read_bytes())


def _line(
  table: Table,
  row: Row,
  settings: jobs.Settings,
  workdir: files.Path,
  examples: Sequence[Mapping[str, np.ndarray]],
) -> page.Line:
  """Scores all seeds of a row, and translates the images of the gallery with the first seed."""
  results, seconds = [], []
  for seed in range(settings.seeds):
    spent = 0.0
    for job in table.jobs(table, settings, row, seed):
      spent += estimate.trained_seconds(workdir / job.folder, job.config)
      if job.config.stage == row.stage:
        break
    seconds.append(spent)
    results.append(_score(workdir / job.folder, stage_lib.num_steps(job.config), table.groups))
    if not seed:
      trained = methods.load(workdir / job.folder)
  role = methods.METHODS[trained.method].source_role
  pictures = [
    trained.translate(example[role], methods.encode(trained, style))
    for example, style in _combinations(examples)
  ]
  return page.Line(row.title, results, seconds, pictures)


def _score(folder: files.Path, step: int, groups: Sequence[str]) -> dict:
  """Results of the last step of a stage, evaluated now if they are missing."""
  results = results_lib.read(folder)
  if results and _is_for_table(results, folder, step):
    # A group that cannot be measured counts as complete and is not tried again.
    if set(groups) <= set(results['groups']):
      return results
  log.info('scoring %s', folder)
  return results_lib.evaluate(folder, groups=groups)


def _is_for_table(results: Mapping, folder: files.Path, step: int) -> bool:
  """Whether results are from `evaluate` with its default arguments."""
  return (
    (results['step'], results['checkpoint'], results['seed']) == (step, 'latest', 0)
    and results['data']['split'] == 'val'
    and results['data']['path'] == config_lib.read(folder).data.path
  )


def _examples(folder: files.Path, config) -> list[dict[str, np.ndarray]]:
  """Validation pairs for the gallery: inputs first, then styles."""
  settings = config.data
  pairs = contents.open_held_out(folder, settings)
  roles = methods.roles(config, pairs)
  return list(
    pipeline.eval_examples(pairs.split('val'), roles, settings.eval_crop, _INPUTS + _STYLES)
  )


def _combinations(examples: Sequence[Mapping]) -> Iterator[tuple[Mapping, Mapping]]:
  """Pairs of the gallery: each input example with each style example."""
  for example in examples[:_INPUTS]:
    for style in examples[-_STYLES:]:
      yield example, style


def _header(role: str, examples: Sequence[Mapping]) -> list[tuple[str, list[np.ndarray]]]:
  pairs = list(_combinations(examples))
  truths = [example['target'] for example in examples[:_INPUTS] for _ in examples[-_STYLES:]]
  return [
    ('input', [gallery.shown(example[role]) for example, _ in pairs]),
    ('true image', truths),
    ('style', [style['target'] for _, style in pairs]),
  ]


def _facts(table: Table, settings: jobs.Settings, lines: Sequence[page.Line]) -> list[str]:
  """Notes on the numbers, one sentence each."""
  first = lines[0].results[0]
  seeds = f'{settings.seeds} seeds: mean ± sample standard deviation'
  fields = ', '.join(f'{field}={text}' for field, text in settings.fields.items())
  return [
    f'{len(first["pictures"])} {first["data"]["split"]} images of {first["data"]["path"]}, '
    f'features={first["features"]}; {seeds if settings.seeds > 1 else "one seed, no spread"}.',
    *table.facts(settings),
    *([f'Set for all: {fields}.'] if fields else []),
  ]
