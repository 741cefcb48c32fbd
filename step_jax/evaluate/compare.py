"""Compares results of several runs that have the same protocol."""

from collections.abc import Mapping, Sequence
import os

from step_jax import files
from step_jax.errors import RunError
from step_jax.evaluate import results as results_lib
from step_jax.evaluate.protocols import GROUPS

_REFUSED = '≠'


def compare(workdirs: Sequence[str | os.PathLike]) -> str:
  """Table of the results of runs, with one column per run and one row per protocol.

  A row shows only scores with the hash of the first run that has the protocol. Other scores are
  marked, and a line below names the field of the definition that differs.

  Args:
    workdirs: work directories of evaluated runs, folders of stages, or results files.

  Raises:
    RunError: a run has no results, or no scores can be compared.
  """
  names = _names([files.path(workdir) for workdir in workdirs])
  runs = {
    name: results_lib.find(workdir)['scores'] for name, workdir in zip(names, workdirs, strict=True)
  }
  ids = dict.fromkeys(
    name
    for group in GROUPS
    for scores in runs.values()
    for name in scores
    if scores[name]['group'] == group
  )
  rows, refusals, compared = [], [], False
  for id_ in ids:
    by_run = {run: scores[id_] for run, scores in runs.items() if id_ in scores}
    first_run, first = next(iter(by_run.items()))
    refused = {run: score for run, score in by_run.items() if score['hash'] != first['hash']}
    compared = compared or len(by_run) - len(refused) > 1
    cells = [_REFUSED if run in refused else _cell(by_run.get(run)) for run in runs]
    rows.append([id_, *cells])
    refusals += [
      f'{id_}: {run} is not compared with {first_run}: {difference(first, score)}'
      for run, score in refused.items()
    ]
  if len(runs) > 1 and not compared:
    raise RunError(
      refusals[0] if refusals else f'{", ".join(runs)} were not scored by any protocol in common'
    )
  return '\n'.join([*_align([['protocol', *runs], *rows]), *(f'{_REFUSED} {r}' for r in refusals)])


def difference(a: Mapping, b: Mapping) -> str:
  """The first field that differs between the definitions of two scores, with both values."""
  ours, theirs = a['definition'], b['definition']
  field = next(name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name))
  return f'{field} is {theirs.get(field)!r}, not {ours.get(field)!r}'


def _names(workdirs: Sequence[files.Path]) -> list[str]:
  """Names of folders, or full paths if the names are not unique."""
  names = [files.resolve(workdir).name for workdir in workdirs]
  return names if len(set(names)) == len(names) else [str(workdir) for workdir in workdirs]


def _cell(score: Mapping | None) -> str:
  return ' '.join(results_lib.texts(score)).rstrip() if score else ''


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(f'{cell:<{width}}' for cell, width in zip(row, widths, strict=True)).rstrip()
    for row in rows
  ]
