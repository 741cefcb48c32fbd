"""Comparable timings: warmed up, synchronised, alternating, with their spread."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import time

import numpy as np

# Runs the workload the given number of times, and returns when it is done.
Work = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Spread:
  """Median and quartiles of measurements."""

  median: float
  lower: float
  upper: float

  @classmethod
  def of(cls, values: Sequence[float]) -> 'Spread':
    """Spread of one or more values; quartiles are interpolated linearly."""
    lower, median, upper = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75))
    return cls(float(median), float(lower), float(upper))


def measure(work: Work, calls: int = 1, clock=time.perf_counter) -> float:
  """Seconds per call, averaged over `calls` calls."""
  started = clock()
  work(calls)
  return (clock() - started) / calls


def warm_up(work: Work, at_least: float = 0.0, clock=time.perf_counter) -> int:
  """Runs the workload until it is compiled and warm.

  Args:
    work: workload.
    at_least: minimum seconds per measurement, so that the clock and the synchronisation with the
      device are negligible.
    clock: returns the time in seconds.

  Returns:
    Number of calls per measurement.
  """
  work(1)
  return max(1, math.ceil(at_least / max(measure(work, clock=clock), 1e-9)))


def in_turn(
  works: Mapping[str, Work],
  repeats: int,
  at_least: float = 0.0,
  clock=time.perf_counter,
) -> dict[str, list[float]]:
  """Measures workloads in alternation, A B A B, so that a temporary slowdown affects all of them.

  Args:
    works: name -> workload; each is warmed up first.
    repeats: number of rounds.
    at_least: see `warm_up`.
    clock: returns the time in seconds.

  Returns:
    Name -> seconds per call, one value per round.
  """
  calls = {name: warm_up(work, at_least, clock) for name, work in works.items()}
  seconds = {name: [] for name in works}
  for _ in range(repeats):
    for name, work in works.items():
      seconds[name].append(measure(work, calls[name], clock))
  return seconds


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
  """Our seconds divided by theirs, per round; below one, ours is faster."""
  return [a / b for a, b in zip(ours, theirs, strict=True)]
