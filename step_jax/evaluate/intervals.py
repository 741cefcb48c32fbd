"""Confidence intervals of scores."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000


def bootstrap(
  values: np.ndarray,
  seed: int = 0,
  level: float = 0.95,
  statistic: Callable[[np.ndarray], float] = np.mean,
) -> tuple[float, float]:
  """Percentile bootstrap interval of the mean over images (Efron 1979).

  Args:
    values: values of images, `[N, …]`; images with NaN are left out.
    seed: seed of the resampling.
    level: confidence level.
    statistic: function of values `[N, …]` to use instead of the mean.

  Returns:
    Lower and upper end; both are NaN if there are no values.
  """
  values = np.asarray(values, np.float64)
  values = values[~np.isnan(values).any(axis=tuple(range(1, values.ndim)))]
  if not len(values):
    return float('nan'), float('nan')
  rng = np.random.default_rng(seed)
  # One resample at a time, because all would need RESAMPLES times the memory of the values.
  drawn = (values[rng.integers(0, len(values), len(values))] for _ in range(RESAMPLES))
  tail = 100 * (1 - level) / 2
  return tuple(float(end) for end in np.percentile(list(map(statistic, drawn)), [tail, 100 - tail]))


def student(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
  """Student's t interval of the mean of a few values `[N]`, such as those of seeds.

  Returns:
    Lower and upper end; both are NaN for fewer than two values.
  """
  # Its import takes a while, and only tables need it.
  import scipy.stats

  if len(values) < 2:
    return float('nan'), float('nan')
  half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * scipy.stats.sem(values)
  return float(np.mean(values) - half), float(np.mean(values) + half)
