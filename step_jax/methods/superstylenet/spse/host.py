"""Reference of superpixel style encoding in NumPy and float64, for one region at a time.

It has the order of operations of the original and gives exactly the same superpixels. `spse.device`
computes the same for batches in float32.
"""

from typing import NamedTuple

import numpy as np

from step_jax.methods.superstylenet.spse import splines
from step_jax.methods.superstylenet.spse.colour import rgb_to_lab
from step_jax.methods.superstylenet.spse.outcome import Outcome
from step_jax.methods.superstylenet.spse.splines import CODE_SIZE, SUPERPIXELS
from step_jax.methods.superstylenet.spse.window import COLOUR_SCALE, ITERATIONS, window_step


class Region(NamedTuple):
  """Superpixels and code of one region; zeros, NaN and -1 if it has none.

  Attributes:
    outcome: whether there is a code, and why not.
    seeds: int `[128, 2]`, row and column.
    step: float32 scalar, mean distance of neighbouring seeds.
    label_dist, label_full: int `[H, W]`, superpixel after the first and after the second pass, -1
      outside of the region.
    cent_dist, cent_full: float64 `[128, 5]`, centres after each pass: row, column, Lab / 10; NaN
      for superpixels without pixels.
    means: float64 `[n, 3]`, mean RGB of the n superpixels that have pixels.
    code: float64 `[512]`.
  """

  outcome: Outcome
  seeds: np.ndarray
  step: np.float32
  label_dist: np.ndarray
  label_full: np.ndarray
  cent_dist: np.ndarray
  cent_full: np.ndarray
  means: np.ndarray
  code: np.ndarray


def encode_region(image: np.ndarray, mask: np.ndarray) -> Region:
  """Extracts the superpixels and the style code of one region.

  Args:
    image: floats `[H, W, 3]`, RGB in [0, 1].
    mask: bool `[H, W]`, the pixels of the region.
  """
  nowhere = np.full(mask.shape, -1)
  nan = np.full((SUPERPIXELS, 5), np.nan)
  empty = Region(
    Outcome.ABSENT,
    np.full((SUPERPIXELS, 2), -1),
    np.float32(0),
    nowhere,
    nowhere,
    nan,
    nan,
    np.zeros((0, 3)),
    np.zeros(CODE_SIZE),
  )
  if not mask.any():
    return empty
  seeds = place_seeds(mask)
  step = seed_step(seeds)
  if step == 0:
    return empty._replace(outcome=Outcome.NO_STEP, seeds=seeds)
  features = COLOUR_SCALE * rgb_to_lab(image.astype(np.float64))
  centres = np.concatenate([seeds, np.zeros((SUPERPIXELS, 3))], axis=1)
  label_dist, cent_dist = _cluster(features, mask, centres, step, colour=False)
  label_full, cent_full = _cluster(features, mask, cent_dist, step, colour=True)
  means = superpixel_means(image, label_full)
  code = encode_means(means)
  outcome = Outcome.OK if code is not None else Outcome.TOO_FEW_SUPERPIXELS
  code = np.zeros(CODE_SIZE) if code is None else code
  return Region(outcome, seeds, step, label_dist, label_full, cent_dist, cent_full, means, code)


def place_seeds(mask: np.ndarray) -> np.ndarray:
  """Greedy farthest-first seeds: int `[128, 2]`, row and column, the most interior pixel first.

  Args:
    mask: bool `[H, W]` with at least one pixel.
  """
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  corner = np.array([rows[0], columns[0]])
  crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  row, column = np.indices(crop.shape)
  squared = _distance_squared(crop)
  seeds = []
  for k in range(SUPERPIXELS):
    seed = np.unravel_index(np.argmax(squared), crop.shape)
    seeds.append(seed)
    to_seed = (row - seed[0]) ** 2 + (column - seed[1]) ** 2
    # Without background, the distances before the first seed were arbitrary.
    squared = to_seed if k == 0 and crop.all() else np.minimum(squared, to_seed)
    squared[~crop] = 0
  return np.array(seeds) + corner


def _distance_squared(crop: np.ndarray) -> np.ndarray:
  """Squared distance to the nearest background pixel of a crop: int `[h, w]`.

  Without background pixels, distances are to a pixel beyond the top left corner, as in SciPy.
  """
  height, width = crop.shape
  row, column = np.indices(crop.shape)
  if crop.all():
    return 1 + row**2 + column**2
  # Vertical distance to the background in the same column, which may have none.
  far = height + width
  above = np.maximum.accumulate(np.where(crop, -far, row), axis=0)
  below = np.minimum.accumulate(np.where(crop, far + height, row)[::-1], axis=0)[::-1]
  vertical = np.minimum(row - above, below - row) ** 2
  offsets = (np.arange(width)[:, None] - np.arange(width)) ** 2
  return np.stack([np.min(offsets + line, axis=1) for line in vertical])


def seed_step(seeds: np.ndarray) -> np.float32:
  """Mean distance of a seed to the nearest other one: the larger of that in rows and in columns.

  Args:
    seeds: int `[128, 2]`.
  """
  difference = np.abs(seeds[:, None] - seeds)
  squared = np.sum(difference**2, axis=-1)
  np.fill_diagonal(squared, np.iinfo(squared.dtype).max)
  nearest = np.argmin(squared, axis=1)
  return np.float32(difference[np.arange(len(seeds)), nearest].mean(axis=0).max())


def _cluster(features, mask, centres, step, colour):
  """One pass of ten iterations: superpixel of each pixel `[H, W]`, and centres `[128, 5]`."""
  height, width = mask.shape
  reach = [2 * size for size in window_step(height, width)]
  weight = 1.0 / np.float64(step * step)
  row, column = np.nonzero(mask)
  points = np.concatenate([row[:, None], column[:, None], features[mask]], axis=1)
  label = np.full(len(row), -1)
  for _ in range(ITERATIONS):
    best = np.full(len(row), np.inf)
    for k, centre in enumerate(centres):
      if np.isnan(centre[0]):
        continue
      inside = np.ones(len(row), bool)
      for axis, size in enumerate((height, width)):
        low = int(max(centre[axis] - reach[axis], 0))
        high = int(min(centre[axis] + reach[axis] + 1, size))
        inside &= (points[:, axis] >= low) & (points[:, axis] < high)
      near = np.flatnonzero(inside)
      difference = points[near] - centre
      squared = (difference[:, 0] ** 2 + difference[:, 1] ** 2) * weight
      if colour:
        squared = squared + np.sum(difference[:, 2:] ** 2, axis=1)
      closer = squared < best[near]
      best[near[closer]] = squared[closer]
      label[near[closer]] = k
    centres = _means(points, label)
  clusters = np.full(mask.shape, -1)
  clusters[mask] = label
  return clusters, centres


def _means(values, label):
  """Mean of each superpixel: `[N, F]`, `[N]` to `[128, F]`, NaN if it has no pixels."""
  valid, label = values[label >= 0], label[label >= 0]
  sums = [np.bincount(label, column, SUPERPIXELS) for column in valid.T]
  with np.errstate(invalid='ignore'):
    return np.stack(sums, axis=1) / np.bincount(label, minlength=SUPERPIXELS)[:, None]


def superpixel_means(image: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Mean RGB of the superpixels that have pixels: float64 `[n, 3]`, in the order of the seeds.

  Args:
    image: floats `[H, W, 3]`.
    label: int `[H, W]`, -1 outside of the region.
  """
  means = _means(image.reshape(-1, 3).astype(np.float64), label.reshape(-1))
  return means[~np.isnan(means[:, 0])]


def encode_means(means: np.ndarray) -> np.ndarray | None:
  """The code of a region's mean colours: float64 `[512]`, or None if there is none.

  Args:
    means: float64 `[n, 3]`.
  """
  count = len(means)
  if not splines.has_code(count):
    return None
  if 2 < count < SUPERPIXELS:
    means = splines.spline_matrix(count, SUPERPIXELS) @ means
  sequence = means.T.reshape(-1)
  return splines.spline_matrix(len(sequence), CODE_SIZE) @ sequence
