"""Scores of a trained run on a split of its data, written to `results.json` (`file_name`)."""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import itertools
import json
import logging
import math
import os
import re

import jax
import numpy as np

from step_jax import files, machine, methods, untrusted
from step_jax.errors import ConfigError, RunError, is_printable
from step_jax.evaluate import diversity, realism, reconstruction
from step_jax.evaluate import session as session_lib
from step_jax.evaluate.protocols import GROUPS
from step_jax.evaluate.scores import Score, Skipped

log = logging.getLogger(__name__)

FILE = 'results.json'
_OTHERS = 'results-*.json'
FORMAT = 'step_jax.results/2'
_PACKAGES = ('step_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'pillow')
_ARROWS = {'higher': '↑', 'lower': '↓', '': ' '}
_TEXTS = {'stage': str, 'features': str}
_SCORE = {
  **{field: str for field in ('hash', 'group', 'title', 'better')},
  'definition': dict,
  'interval': list | None,
  'value': int | float | None,
}
# Functions that measure runs of every method, and the groups of their scores.
_MEASURES: tuple[tuple[Callable, frozenset[str]], ...] = (
  (reconstruction.measure, frozenset({'reconstruction', 'style'})),
  (diversity.measure, frozenset({'diversity'})),
  (realism.measure, frozenset({'realism'})),
)


def evaluate(
  workdir: str | os.PathLike,
  split: str = 'val',
  which: str = 'latest',
  path: str = '',
  groups: Sequence[str] = tuple(GROUPS),
  seed: int = 0,
  out: str | os.PathLike | None = None,
) -> dict:
  """Scores a run, and writes the results to the folder of its stage, or to `out`.

  The file (`file_name`) is written after each group, even if the next one fails. Scores in an
  existing file are kept until they are measured again, if step, data, seed and checkpoint are the
  same.

  Args:
    workdir: work directory of the run, or the folder of a stage.
    split: split of the data set.
    which: `latest` or `best` checkpoint.
    path: data set to use instead of that of the run.
    groups: names in `protocols.GROUPS`; scores without weights or data are skipped.
    seed: seed of all random numbers.
    out: folder for the results; required for exports, which are read-only.

  Returns:
    The content of the file. `scores` maps the id of each protocol to its hash, group, title, better
    and definition, and to `value`, `interval` (or None) and `values` per image in the order of
    `pictures` (or None); numbers that are not finite are None. Scores of sampled styles also have
    `drawn_by`: the sampler of this run, and the encoder that its mapper was fitted to. `skipped`
    lists scores that were not measured, and `groups` the complete groups with their skipped scores.
    `versions` are those of the last evaluation; scores measured with other versions have their own.

  Raises:
    UserError: there is no such group; the run, its data or its weights are missing; or the results
      of an earlier evaluation are damaged.
  """
  for group in groups:
    if group not in GROUPS:
      raise ConfigError(f'no group of scores is called {group!r}; there are {", ".join(GROUPS)}')
  session = session_lib.open_run(workdir, split, which, path, seed)
  folder = methods.output(session.folder, out)
  file = folder / file_name(session, which, path)
  results = {
    'format': FORMAT,
    'stage': session.config.stage,
    'step': session.run.step,
    'checkpoint': which,
    'seed': seed,
    'data': {
      'path': path or session.config.data.path,
      'split': split,
      'fingerprint': session.pair_set.fingerprint,
    },
    'features': session.features.label if session.features else 'none',
    'versions': machine.versions(_PACKAGES),
    'groups': {},
    'skipped': {},
    'pictures': session.pair_set.split(split).names(),
    'scores': {},
  }
  merged = _merge(_read_file(file), results)
  own = methods.METHODS[session.run.method].hook('measures') or ()
  covered = set().union(*(of for _, of in own))
  general = [(measure, of) for measure, of in _MEASURES if not of <= covered]
  pending = [(measure, of) for measure, of in (*own, *general) if of & set(groups)]
  skipped = {group: [] for group in GROUPS if group in groups}
  while pending:
    measure, measured = pending.pop(0)
    log.info('measuring %s', ', '.join(sorted(measured & set(groups))))
    try:
      for score in measure(session):
        if isinstance(score, Skipped):
          results['skipped'][score.what] = score.why
          for group in measured & set(groups):
            skipped[group].append(score.what)
        elif score.protocol.group in groups:
          results['scores'][score.protocol.id] = _describe(score)
          if 'sampler' in score.protocol.definition:
            results['scores'][score.protocol.id]['drawn_by'] = session.drawn_by
      waiting = set().union(*(of for _, of in pending))
      results['groups'] = {group: what for group, what in skipped.items() if group not in waiting}
    finally:
      if results['scores'] or results['groups']:
        # Another evaluation may have written meanwhile.
        merged = _merge(_read_file(file), results)
        if jax.process_index() == 0:
          text = json.dumps(merged, indent=2, allow_nan=False, ensure_ascii=False) + '\n'
          files.make_folder(folder)
          files.write_text(file, text)
  if results['skipped']:
    reasons = (f'{what}: {why}' for what, why in results['skipped'].items())
    log.info('not measured: %s', '; '.join(reasons))
  log.info('%s: written', file)
  return merged


def file_name(session: session_lib.Session, which: str = 'latest', path: str = '') -> str:
  """Name of the results file of an evaluation.

  `results.json` is for the validation split of the run's own data, the latest checkpoint and seed
  0. Other names state the differences: `results-split=test.json`, `results-checkpoint=best.json`,
  `results-data=NAME-12345678-seed=3.json`, where the digits are a hash of the data.

  Args:
    session: the run, opened for evaluation.
    which: `latest` or `best` checkpoint.
    path: data set, if it is not that of the run.
  """
  parts = []
  if path and not _same_place(path, session.config.data.path):
    digest = hashlib.sha256(session.pair_set.fingerprint.encode()).hexdigest()[:8]
    parts.append(f'data={files.short_name(files.resolve(files.path(path)).name)}-{digest}')
  parts += [f'split={session.split}'] if session.split != 'val' else []
  parts += [f'checkpoint={which}'] if which != 'latest' else []
  parts += [f'seed={session.seed}'] if session.seed else []
  stem = re.sub(r'[^\w.=+-]', '_', '-'.join(['results', *parts]))
  return f'{files.short_name(stem, 200)}.json'


def _same_place(a: str, b: str) -> bool:
  return a == b or files.resolve(files.path(a)) == files.resolve(files.path(b))


def _merge(before: Mapping | None, results: dict) -> dict:
  """Adds scores of an earlier file of the same evaluation that were not measured now."""
  if before is None or not _is_same(before, results):
    return results
  groups = {**before['groups'], **results['groups']}
  kept = itertools.chain(*(before['groups'][group] for group in groups.keys() - results['groups']))
  scores = before['scores']
  if before.get('versions') != results['versions']:
    scores = {name: {'versions': before.get('versions'), **score} for name, score in scores.items()}
  return {
    **results,
    'groups': groups,
    'skipped': {what: before['skipped'][what] for what in sorted(set(kept))} | results['skipped'],
    'scores': scores | results['scores'],
  }


def _is_same(a: Mapping, b: Mapping) -> bool:
  """Whether results have the same step, checkpoint, seed, feature network and images."""
  of_data = lambda results: [results['data'].get(field) for field in ('split', 'fingerprint')]
  fields = ('stage', 'step', 'checkpoint', 'seed', 'features', 'pictures')
  return of_data(a) == of_data(b) and all(a.get(field) == b.get(field) for field in fields)


def _describe(score: Score) -> dict:
  protocol = score.protocol
  by_picture = None if score.values is None else [_finite(value) for value in score.values]
  return {
    'hash': protocol.hash,
    'group': protocol.group,
    'title': protocol.title,
    'better': protocol.better,
    'value': _finite(score.value),
    'interval': score.interval and [_finite(end) for end in score.interval],
    'definition': dict(protocol.definition),
    'values': by_picture,
  }


def _finite(value: float | np.floating) -> float | None:
  """The number, or None: JSON has no NaN and no infinity."""
  return float(value) if math.isfinite(value) else None


def read(folder: files.Path) -> dict | None:
  """Reads the results of a stage: `results.json`, or the first file of other data or splits.

  Returns None if there are none, or only those of an older version.

  Raises:
    RunError: they are damaged.
  """
  results = _read_file(folder / FILE)
  return results or next(filter(None, map(_read_file, sorted(folder.glob(_OTHERS)))), None)


def _read_file(path: files.Path) -> dict | None:
  if not path.is_file():
    return None
  try:
    results = untrusted.read_json(path.read_text('utf-8'))
    if results.get('format') != FORMAT:
      log.warning('%s was written by another version: run step-jax evaluate again', path)
      return None
    _check(results)
  except ValueError as error:
    raise untrusted.damaged(path, error, 'remove it, and run step-jax evaluate again') from None
  # Older files do not list groups; all of their groups are complete.
  groups = {score['group'] for score in results['scores'].values()} | set(results['skipped'])
  noted = {group: list(results['skipped']) for group in GROUPS if group in groups}
  return {'groups': noted, **results}


def _check(results: Mapping) -> None:
  """Checks that results have all fields that are displayed.

  Raises:
    ValueError: a field is missing or has another type.
  """
  _demand(results, {**_TEXTS, 'step': int, 'seed': int, 'pictures': list, 'skipped': dict})
  _demand(results, {'data': dict, 'scores': dict})
  _demand(results['data'], {'path': str, 'split': str})
  for name, score in results['scores'].items():
    if not isinstance(score, dict):
      raise ValueError(f'{name} is no score')
    _demand(score, _SCORE)
    ends = score['interval']
    if ends is not None and (len(ends) != 2 or not all(_is_number(end) for end in ends)):
      raise ValueError(f'interval of {name}')
    if score['better'] not in _ARROWS or not _is_number(score['value']):
      raise ValueError(f'value of {name}')
  texts = [*results['skipped'], *results['skipped'].values(), *results['scores']]
  texts += [results[field] for field in _TEXTS] + list(results['data'].values())
  for score in results['scores'].values():
    definition = score['definition']
    texts += [score['title'], score['hash'], *definition, *definition.values()]
  groups = results.get('groups', {})
  _demand({'groups': groups}, {'groups': dict})
  for skipped in groups.values():
    if not isinstance(skipped, list) or not set(map(str, skipped)) <= set(results['skipped']):
      raise ValueError(f'{skipped!r} in place of what was skipped')
  for text in texts:
    if not isinstance(text, str) or not is_printable(text):
      raise ValueError(f'{text!r} in place of a text')


def _demand(values: Mapping, fields: Mapping[str, type]) -> None:
  for field, kind in fields.items():
    if field not in values or not isinstance(values[field], kind):
      raise ValueError(f'no {field}')


def _is_number(value: object) -> bool:
  return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def find(workdir: str | os.PathLike) -> dict:
  """Reads the results of a run: of the stage in the folder, or of the best stage with results.

  A results file, such as `finetune/results-split=test.json`, is read directly.

  Raises:
    RunError: there are no results.
  """
  workdir = files.path(workdir)
  if workdir.suffix == '.json' and (results := _read_file(workdir)):
    return results
  stages = [stage for method in methods.METHODS.values() for stage in method.translating]
  for folder in (workdir, *(workdir / stage for stage in stages)):
    results = read(folder)
    if results:
      return results
  raise RunError(f'{workdir}: has no results: run `step-jax evaluate --workdir {workdir}`')


def table(results: Mapping) -> str:
  """The scores with their intervals as text, by group."""
  lines = [
    f'{results["stage"]} step {results["step"]}, {len(results["pictures"])} pictures of '
    f'{results["data"]["split"]}, features={results["features"]}, seed {results["seed"]}'
  ]
  width = max(map(len, results['scores']), default=0)
  for group, scores in by_group(results).items():
    lines.append(group)
    for name, score in scores.items():
      value, interval = texts(score)
      title = score['title'].partition(':')[0]
      better = _ARROWS[score['better']]
      lines.append(f'  {name:<{width}}  {value:>9} {better} {interval:<20}  {title}')
  return '\n'.join(lines)


def by_group(results: Mapping) -> dict[str, dict[str, Mapping]]:
  """Group -> id -> score; groups without scores are left out."""
  grouped = {
    group: {name: score for name, score in results['scores'].items() if score['group'] == group}
    for group in GROUPS
  }
  return {group: scores for group, scores in grouped.items() if scores}


def texts(score: Mapping) -> tuple[str, str]:
  """Value and interval of a score as text; `-` and empty if they are missing."""
  ends = [end for end in score['interval'] or () if end is not None]
  interval = f'[{ends[0]:.4f}, {ends[1]:.4f}]' if len(ends) == 2 else ''
  return ('-' if score['value'] is None else f'{score["value"]:.4f}'), interval
