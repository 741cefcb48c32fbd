"""Seconds, taken so that they can be compared: warmed up, synchronised, in turn, with spread."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import time

import numpy as np

# Does the work so many times, and returns when all of it is done.
Work = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Spread:
  """Median and quartiles of measurements."""

  median: float
  lower: float
  upper: float

  @classmethod
  def of(cls, values: Sequence[float]) -> 'Spread':
    """Of at least one value; quartiles are interpolated linearly."""
    lower, median, upper = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75))
    return cls(float(median), float(lower), float(upper))


def measure(work: Work, calls: int = 1, clock=time.perf_counter) -> float:
  """Seconds that one of `calls` calls takes."""
  started = clock()
  work(calls)
  return (clock() - started) / calls


def warm_up(work: Work, at_least: float = 0.0, clock=time.perf_counter) -> int:
  """Runs the work until it is compiled and warm.

  Args:
    work: what to run.
    at_least: seconds that a measurement should last, so that the clock and the wait for the device
      do not count.
    clock: the time.

  Returns:
    How many calls a measurement should be made of.
  """
  work(1)
  return max(1, math.ceil(at_least / max(measure(work, clock=clock), 1e-9)))


def in_turn(
  works: Mapping[str, Work],
  repeats: int,
  at_least: float = 0.0,
  clock=time.perf_counter,
) -> dict[str, list[float]]:
  """Measures works in turn, A B A B: what slows the machine down for a while slows all of them.

  Args:
    works: name -> work; each is warmed up first.
    repeats: rounds.
    at_least: see `warm_up`.
    clock: the time.

  Returns:
    Name -> seconds a call, one a round.
  """
  calls = {name: warm_up(work, at_least, clock) for name, work in works.items()}
  seconds = {name: [] for name in works}
  for _ in range(repeats):
    for name, work in works.items():
      seconds[name].append(measure(work, calls[name], clock))
  return seconds


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
  """Our seconds over theirs, round by round: below one we are faster."""
  return [a / b for a, b in zip(ours, theirs, strict=True)]
