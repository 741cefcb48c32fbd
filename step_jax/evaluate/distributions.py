"""Distances between the feature distributions of two sets of images.

With Inception features these are FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018). With
features of another network they are Fréchet and kernel distances, not FID and KID. Features are
processed in batches and not kept: 50,000 images need no more memory than 500.
"""

from collections.abc import Iterable, Iterator
import dataclasses

import numpy as np

BLOCK = 1000
# Number of vectors whose distances to all others are computed at a time.
_ROWS = 512
# Minimum number of pairs for the jackknife.
_FEWEST = 3


@dataclasses.dataclass(frozen=True)
class Moments:
  """Count, mean and scatter of features; combine them with `merge`.

  Attributes:
    count: number of feature vectors.
    mean: float64 `[D]`.
    scatter: float64 `[D, D]`, the sum of outer products of deviations from the mean.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """Unbiased covariance, float64 `[D, D]`: scatter / (count - 1).

    Raises:
      ValueError: there are fewer than two vectors.
    """
    if self.count < 2:
      raise ValueError(f'a covariance needs two feature vectors or more, not {self.count}')
    return self.scatter / (self.count - 1)


@dataclasses.dataclass(frozen=True)
class KernelScore:
  """A kernel distance.

  Attributes:
    value: mean squared MMD of the blocks, weighted by their numbers of pairs; unbiased, so it can
      be below 0.
    standard_error: standard error of the value.
    pairs: number of vectors of each set.
  """

  value: float
  standard_error: float
  pairs: int


def moments(features: np.ndarray) -> Moments:
  """Moments of features `[N, D]` of any float type, N at least 0, in float64."""
  features = np.asarray(features, np.float64)
  mean = features.sum(axis=0) / max(len(features), 1)
  deviations = features - mean
  return Moments(len(features), mean, deviations.T @ deviations)


def merge(a: Moments, b: Moments) -> Moments:
  """Moments of the union of two sets (Chan et al. 1983); stable for means far from 0."""
  count = a.count + b.count
  share = b.count / max(count, 1)
  step = b.mean - a.mean
  between = np.outer(step, step * (a.count * share))
  return Moments(count, a.mean + share * step, a.scatter + b.scatter + between)


def accumulate(batches: Iterable[np.ndarray]) -> Moments:
  """Moments of all features in a stream of batches `[B, D]`; keeps one batch at a time.

  Raises:
    ValueError: the stream is empty.
  """
  total = None
  for batch in batches:
    total = moments(batch) if total is None else merge(total, moments(batch))
  if total is None:
    raise ValueError('a stream of features is empty')
  return total


def frechet_distance(a: Moments, b: Moments) -> float:
  """Squared Fréchet distance of two normal distributions with these moments, at least 0.

  `|m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2))` (Dowson and Landau 1982). The last
  trace is the sum of the singular values of `F_a F_b^T` where `C = F^T F`. This needs no square
  root of an unsymmetric matrix and is exact for singular covariances, so there may be fewer images
  than features. The distance is biased upwards for few images: compare only equal counts.

  Raises:
    ValueError: one has fewer than two vectors, or vectors of another length.
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(f'features of length {len(a.mean)} and {len(b.mean)} cannot be compared')
  covariances = a.covariance, b.covariance
  factors = [_factor(covariance) for covariance in covariances]
  common = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
  total = sum(np.trace(covariance) for covariance in covariances)
  return max(float(np.sum(np.square(a.mean - b.mean)) + total - 2 * common), 0.0)


def _factor(covariance: np.ndarray) -> np.ndarray:
  """F `[R, D]` with F^T F the covariance `[D, D]` of rank R."""
  values, vectors = np.linalg.eigh(covariance)
  # Zero eigenvalues become rounding errors, whose square roots would be much larger.
  real = values > len(values) * np.finfo(np.float64).eps * values[-1]
  return (vectors[:, real] * np.sqrt(values[real])).T


@dataclasses.dataclass(frozen=True)
class SampleDistances:
  """Euclidean distances between sampled and real vectors; lower is better.

  Attributes:
    coverage: mean distance of a real vector to the nearest sampled one.
    precision: mean distance of a sampled vector to the nearest real one.
    energy: energy distance `2 E|X - Y| - E|X - X'| - E|Y - Y'|` (Székely and Rizzo 2013) of the two
      distributions, without distances of vectors to themselves: unbiased, so it can be below 0. It
      is low only if both other distances are.
  """

  coverage: float
  precision: float
  energy: float


def sample_distances(real: np.ndarray, drawn: np.ndarray) -> SampleDistances:
  """Compares real vectors `[N, D]` with sampled ones `[M, D]` in float64; N and M at least 1."""
  nearest_drawn, nearest_real, total = [], np.inf, 0.0
  for block in _distance_blocks(real, drawn):
    nearest_drawn.append(block.min(axis=1))
    nearest_real = np.minimum(nearest_real, block.min(axis=0))
    total += block.sum()
  across = total / (len(real) * len(drawn))
  energy = 2 * across - _mean_distance(real) - _mean_distance(drawn)
  coverage, precision = np.concatenate(nearest_drawn).mean(), nearest_real.mean()
  return SampleDistances(float(coverage), float(precision), float(energy))


def _mean_distance(x: np.ndarray) -> float:
  """Mean distance between different vectors of `[N, D]`; 0 if there is only one."""
  return sum(block.sum() for block in _distance_blocks(x, x)) / max(len(x) * (len(x) - 1), 1)


def _distance_blocks(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
  """Yields distances of blocks of rows of `x` `[N, D]` to all of `y` `[M, D]`, float64 `[n, M]`."""
  columns = np.asarray(y, np.float64).T
  for start in range(0, len(x), _ROWS):
    rows = np.asarray(x[start : start + _ROWS], np.float64).T
    # Differences, because products lose precision far from the origin.
    pairs = zip(rows, columns, strict=True)
    yield np.sqrt(sum(np.square(row[:, None] - column) for row, column in pairs))


def squared_mmd(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """Unbiased squared maximum mean discrepancy with the kernel `(x . y / D + 1)^3`.

  Gretton et al. 2012, eq. 3 with KID's kernel: mean of the kernel within each set, without that of
  a vector with itself, minus twice the mean between the sets. The standard error is from the
  jackknife, which leaves out one pair at a time; for equal distributions it is too large by a
  factor of about sqrt(2).

  Args:
    x, y: features `[N, D]`, N at least 3.

  Returns:
    Value and standard error.

  Raises:
    ValueError: shapes differ, or N is below 3.
  """
  count = len(x)
  if x.shape != y.shape or count < _FEWEST:
    raise ValueError(
      f'need two sets of {_FEWEST} or more features each, not {list(x.shape)} and {list(y.shape)}'
    )
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  kernel = lambda a, b: (a @ b.T / a.shape[1] + 1.0) ** 3
  within = kernel(x, x) + kernel(y, y)
  np.fill_diagonal(within, 0)
  across = kernel(x, y)

  def estimate(within_sum, across_sum, count):
    return within_sum / (count * (count - 1)) - 2 * across_sum / count**2

  value = estimate(within.sum(), across.sum(), count)
  # The contribution of a pair to the sums is its row and column.
  without = estimate(
    within.sum() - 2 * within.sum(axis=1),
    across.sum() - across.sum(axis=0) - across.sum(axis=1) + np.diagonal(across),
    count - 1,
  )
  return float(value), float(np.sqrt((count - 1) * np.var(without)))


class KernelDistance:
  """Kernel distance of two streams of features: `add` pairs of batches, then get the `score`.

  KID is a mean of `squared_mmd` over blocks. Here these are consecutive blocks of `block` pairs,
  and a last block with the remaining pairs, so that every pair is used exactly once. Only the pairs
  of an incomplete block are kept.
  """

  def __init__(self, block: int = BLOCK):
    """Creates an empty distance; a block has `block` pairs, at least 3."""
    self._block = max(block, _FEWEST)
    self._waiting: list[np.ndarray] = []
    self._scores: list[KernelScore] = []

  def add(self, x: np.ndarray, y: np.ndarray) -> None:
    """Adds pairs: features `[B, D]` of each set, of any float type.

    Raises:
      ValueError: the shapes differ.
    """
    if x.shape != y.shape:
      raise ValueError(f'features come in pairs, not as {list(x.shape)} and {list(y.shape)}')
    self._waiting.append(np.stack([x, y], axis=1))
    # A block is complete when enough pairs are left for another one.
    if sum(map(len, self._waiting)) < self._block + _FEWEST:
      return
    waiting = np.concatenate(self._waiting)
    while len(waiting) >= self._block + _FEWEST:
      self._scores.append(_score(waiting[: self._block]))
      waiting = waiting[self._block :]
    self._waiting = [waiting.copy()]  # A view would keep the whole array alive.

  def score(self) -> KernelScore:
    """The distance of all pairs so far; more may be added afterwards.

    Raises:
      ValueError: there are fewer than 3 pairs.
    """
    rest = _score(np.concatenate(self._waiting)) if self._waiting else _score(np.empty((0, 2, 0)))
    scores = [*self._scores, rest]
    pairs = sum(score.pairs for score in scores)
    value = sum(score.pairs * score.value for score in scores) / pairs
    variance = sum((score.pairs / pairs * score.standard_error) ** 2 for score in scores)
    return KernelScore(value, float(np.sqrt(variance)), pairs)


def _score(pairs: np.ndarray) -> KernelScore:
  """The score of one block of pairs `[N, 2, D]`."""
  return KernelScore(*squared_mmd(pairs[:, 0], pairs[:, 1]), len(pairs))
