"""How sure a mean over pictures is."""

import numpy as np

RESAMPLES = 1000


def bootstrap(values: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
  """Percentile bootstrap interval of the mean (Efron 1979).

  Args:
    values: one a picture, `[N]`; NaN are left out.
    seed: of the resampling.
    level: of confidence.

  Returns:
    Lower and upper end; both NaN without values.
  """
  values = np.asarray(values, np.float64)
  values = values[~np.isnan(values)]
  if not len(values):
    return float('nan'), float('nan')
  rng = np.random.default_rng(seed)
  # Row by row: all at once would need RESAMPLES times the memory of the values.
  means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
  tail = 100 * (1 - level) / 2
  return tuple(float(end) for end in np.percentile(means, [tail, 100 - tail]))
