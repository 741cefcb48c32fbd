"""Scores with their protocols and intervals, and their computation from batches."""

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
  """A measured score.

  Attributes:
    protocol: definition, with data and weights.
    value: the score; NaN if there are no values to average.
    interval: lower and upper end of the 95 % interval; None if there is none.
    values: values per image, `[N]`, with NaN for images without a value; None if there are none.
  """

  protocol: Protocol
  value: float
  interval: tuple[float, float] | None = None
  values: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Skipped:
  """A score that was not measured, and the reason."""

  what: str
  why: str


def mean_score(protocol: Protocol, values: np.ndarray) -> Score:
  """Mean of the values of images, `[N]`, with a bootstrap interval; ignores NaN."""
  return Score(protocol, known_mean(values), intervals.bootstrap(values), values)


def known_mean(values: np.ndarray) -> float:
  """Mean of values `[N]`, ignoring NaN; NaN if all are."""
  values = np.asarray(values, np.float64)
  numbers = values[~np.isnan(values)]
  return float(numbers.mean()) if len(numbers) else float('nan')


def in_order(
  function: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]],
  batches: Iterable[Mapping[str, np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
  """Applies a function to batches and yields its results per image, in the order of the images.

  A result is kept only until those of all earlier images are available, so a stream of images of
  one size needs no more memory than a batch.

  Args:
    function: `batch -> {name: [B, …]}`.
    batches: batches from `data.pipeline.eval_batches`; copies are skipped.
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
  """Indexes the first axis of every array of a tree."""
  return jax.tree.map(lambda x: x[index], tree)


def chunks(items: Iterable, size: int) -> Iterator[list]:
  """Splits items into lists of `size`; the last one may be shorter."""
  items = iter(items)
  while chunk := list(itertools.islice(items, size)):
    yield chunk


def stack(rows: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Stacks the output of `in_order`: name -> `[number of images, …]`."""
  columns: dict[str, list] = {}
  for row in rows:
    for name, value in row.items():
      columns.setdefault(name, []).append(value)
  return {name: np.stack(column) for name, column in columns.items()}


def collect(
  score: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]],
  batches: Iterable[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  """Scores of all images in order: `stack` of `in_order`."""
  return stack(in_order(score, batches))
