"""Scores: a number, the protocol that made it, how sure it is; and how they come from batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import itertools
from typing import Any

import jax
import numpy as np

from step_jax.evaluate import intervals
from step_jax.evaluate.protocols import Protocol


@dataclasses.dataclass(frozen=True)
class Score:
  """A number that was measured.

  Attributes:
    protocol: what it is, on which data and with which weights.
    value: the number; NaN where there was nothing to take a mean of.
    interval: lower and upper end of its 95 % interval, where one is known.
    values: the number of every picture, `[N]`, where pictures have one; NaN where one has none.
  """

  protocol: Protocol
  value: float
  interval: tuple[float, float] | None = None
  values: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Skipped:
  """What was not measured, and why."""

  what: str
  why: str


def mean_score(protocol: Protocol, values: np.ndarray) -> Score:
  """The mean of one value a picture, `[N]`, with its bootstrap interval; NaN are left out."""
  return Score(protocol, known_mean(values), intervals.bootstrap(values), values)


def known_mean(values: np.ndarray) -> float:
  """Mean of values `[N]` that are not NaN; NaN where all are."""
  values = np.asarray(values, np.float64)
  numbers = values[~np.isnan(values)]
  return float(numbers.mean()) if len(numbers) else float('nan')


def in_order(
  function: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]],
  batches: Iterable[Mapping[str, np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
  """What a function of batches gives for each picture, in the order of pictures.

  Results wait only for those of pictures before them, so that a stream of pictures of one size
  needs no more memory than a batch, however long it is.

  Args:
    function: `batch -> {name: [B, …]}`.
    batches: as `data.pipeline.eval_batches` makes them; fillers are left out.
  """
  waiting: dict[int, dict[str, np.ndarray]] = {}
  following = 0
  for batch in batches:
    results = {name: np.asarray(value) for name, value in jax.device_get(function(batch)).items()}
    for row in np.flatnonzero(batch['mask']):
      waiting[int(batch['index'][row])] = {name: value[row] for name, value in results.items()}
    while following in waiting:
      yield waiting.pop(following)
      following += 1


def at(tree: Any, index: Any) -> Any:
  """What stands at an index of the first axis of every array of a tree, as codes are."""
  return jax.tree.map(lambda x: x[index], tree)


def chunks(items: Iterable, size: int) -> Iterator[list]:
  """Lists of `size` items, the last one of what is left."""
  items = iter(items)
  while chunk := list(itertools.islice(items, size)):
    yield chunk


def stack(rows: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """What `in_order` yields as arrays: name -> `[number of pictures, …]`."""
  columns: dict[str, list] = {}
  for row in rows:
    for name, value in row.items():
      columns.setdefault(name, []).append(value)
  return {name: np.stack(column) for name, column in columns.items()}


def collect(
  score: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]],
  batches: Iterable[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  """Scores of all pictures, in their order: `stack` of `in_order`."""
  return stack(in_order(score, batches))
