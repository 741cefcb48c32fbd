"""Trains and scores the rows of a table and prints it; resumes if interrupted."""

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

# Pictures of the gallery: inputs, and styles that each is shown in.
_INPUTS = 3
_STYLES = 3


def choose_rows(table: Table, settings: jobs.Settings, names: Sequence[str] = ()) -> list[Row]:
  """The rows that are wanted and can be made, which those of missing encoder pictures cannot.

  Args:
    table: of `tables()`.
    settings: what pictures there are.
    names: of runs (`Row.run`) or presets; all by default.

  Raises:
    ConfigError: no row has such a name, or none can be made.
  """
  row_names = {row.run for row in table.rows} | {row.preset for row in table.rows}
  for name in names:
    if name not in row_names:
      raise ConfigError(f'no row is called {name!r}; there are {", ".join(sorted(row_names))}')
  wanted = [row for row in table.rows if not names or {row.run, row.preset} & set(names)]
  rows = [row for row in wanted if set(row.needs) <= set(settings.sources)]
  for missing in sorted({role for row in wanted for role in row.needs} - set(settings.sources)):
    log.warning('rows of a %s set are left out: give --%s', missing, missing)
  if not rows:
    raise ConfigError('no row is left to make: give --related, or other --rows')
  return rows


def reproduce(
  name: str,
  settings: jobs.Settings,
  workdir: str | os.PathLike,
  rows: Sequence[str] = (),
) -> files.Path:
  """Makes a table; what was trained and scored before in `workdir` is taken as it is.

  Args:
    name: of `tables()`.
    settings: what all rows share.
    workdir: every row has a run in it.
    rows: see `choose_rows`.

  Returns:
    Path of `table.html`; `table.md` and `gallery.png` lie beside it. They are written anew after
    every row.

  Raises:
    UserError: a row cannot be trained or scored, or no table has that name.
  """
  table = _table(name)
  workdir = files.path(workdir)
  wanted = choose_rows(table, settings, rows)
  planned = jobs.make(table, settings, wanted)
  for i, job in enumerate(planned):
    log.info('--- %d of %d: %s', i + 1, len(planned), job.folder)
    _take_files(workdir, job)
    methods.train(job.config, workdir / job.run)
  last = planned[-1]
  examples = _examples(workdir / last.folder, last.config)
  role = methods.of_stage(last.config.stage)[0].source_role
  lines = []
  for row in wanted:
    lines.append(_line(table, row, settings, workdir, examples))
    facts = _facts(table, settings, lines)
    path = page.write(workdir, table.title, facts, lines, _header(role, examples))
  return path


def plan(
  name: str, settings: jobs.Settings, workdir: str | os.PathLike, rows: Sequence[str] = ()
) -> str:
  """What `reproduce` would train, how long each may take on this machine, and all together."""
  table = _table(name)
  workdir = files.path(workdir)
  wanted = jobs.make(table, settings, choose_rows(table, settings, rows))
  minutes = [seconds / 60 for seconds in estimate.seconds_left(wanted, workdir)]
  lines = [
    f'{str(job.folder):<44} {stage_lib.num_steps(job.config):>8} steps {left:>8.1f} min'
    if 'total_kimg' in job.config.schedule
    else f'{str(job.folder):<44} {job.config.schedule.epochs:>8} epochs     < 1 min'
    for job, left in zip(wanted, minutes, strict=True)
  ]
  total = sum(minutes)
  return '\n'.join(
    [
      table.title,
      *lines,
      f'about {total:.0f} min of training steps on this machine, by their FLOPs and the rate of '
      'a small probe; compiling and scoring come on top',
    ]
  )


def tables() -> dict[str, Table]:
  """The tables of all methods by name."""
  hooks = [method.hook('tables') or {} for method in methods.METHODS.values()]
  return {name: table for hook in hooks for name, table in hook.items()}


def _table(name: str) -> Table:
  all_tables = tables()
  if name not in all_tables:
    raise ConfigError(f'no table is called {name!r}; there are {", ".join(all_tables)}')
  return all_tables[name]


def _take_files(workdir: files.Path, job: jobs.Job) -> None:
  """Copies what another run has made already; the stage checks whether it fits."""
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
  """Scores a row, all seeds, and lets the first one translate the pictures of the gallery."""
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
  """The results of a stage's last step, measured now if they are not there."""
  results = results_lib.read(folder)
  if results and _is_for_table(results, folder, step):
    # A group that cannot be measured is complete, and not tried again.
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
  """Every example of the gallery that is translated, with each that gives the style."""
  for example in examples[:_INPUTS]:
    for style in examples[-_STYLES:]:
      yield example, style


def _header(role: str, examples: Sequence[Mapping]) -> list[tuple[str, list[np.ndarray]]]:
  pairs = list(_combinations(examples))
  truths = [example['target'] for example in examples[:_INPUTS] for _ in examples[-_STYLES:]]
  return [
    ('input', [gallery.shown(example[role]) for example, _ in pairs]),
    ('its true picture', truths),
    ('style', [style['target'] for _, style in pairs]),
  ]


def _facts(table: Table, settings: jobs.Settings, lines: Sequence[page.Line]) -> list[str]:
  """What a reader must know of the numbers."""
  first = lines[0].results[0]
  seeds = f'{settings.seeds} seeds: mean ± sample standard deviation'
  fields = ', '.join(f'{field}={text}' for field, text in settings.fields.items())
  return [
    f'{len(first["pictures"])} {first["data"]["split"]} pictures of {first["data"]["path"]}, '
    f'features={first["features"]}; {seeds if settings.seeds > 1 else "one seed, no spread"}.',
    *table.facts(settings),
    *([f'Set for all: {fields}.'] if fields else []),
  ]
