"""NDB and JSD: which kinds of images a method generates too often or too rarely.

Richardson and Weiss 2018: reference images are clustered into bins, and the fraction of other
images in each bin is tested against that of the reference. NDB/K is the fraction of bins that
differ significantly; for a perfect method it is about the level of the test. JSD is the
Jensen-Shannon divergence of the two histograms.
"""

import dataclasses
import statistics

import numpy as np

LEVEL = 0.05
_ROUNDS = 100


@dataclasses.dataclass(frozen=True)
class Bins:
  """Bins of reference samples.

  Attributes:
    centers: float64 `[K, D]`, largest bin first. A sample belongs to the nearest centre.
    counts: number of reference samples per bin, int64 `[K]`.
  """

  centers: np.ndarray
  counts: np.ndarray


@dataclasses.dataclass(frozen=True)
class BinScore:
  """Difference of two histograms over the same bins.

  Attributes:
    ndb: number of bins that differ significantly.
    share: `ndb` as a fraction of all bins, 0..1.
    jsd: Jensen-Shannon divergence in nats, 0..ln 2.
    different: bool `[K]`, the bins that differ.
  """

  ndb: int
  share: float
  jsd: float
  different: np.ndarray


def fit_bins(samples: np.ndarray, count: int = 100, seed: int = 0) -> Bins:
  """K-means bins of reference samples, a deterministic function of samples and seed.

  Lloyd's iteration, initialised by k-means++ (Arthur and Vassilvitskii 2007), until no sample
  changes its bin, at most 100 rounds. Samples are converted to float64.

  Args:
    samples: `[N, D]`, pixels or features, one row per image.
    count: number of bins, K.
    seed: seed of the first centres.

  Raises:
    ValueError: there are fewer different samples than bins.
  """
  samples = np.asarray(samples, np.float64)
  centers = _spread(samples, count, np.random.RandomState(seed))
  nearest = _nearest(centers, samples)
  for _ in range(_ROUNDS):
    centers = np.stack([_mean(samples[nearest == k], centers[k]) for k in range(count)])
    before, nearest = nearest, _nearest(centers, samples)
    if np.array_equal(before, nearest):
      break
  counts = np.bincount(nearest, minlength=count)
  order = np.argsort(-counts, kind='stable')
  return Bins(centers[order], counts[order])


def count_bins(bins: Bins, samples: np.ndarray) -> np.ndarray:
  """Number of samples `[N, D]` in each bin, int64 `[K]`; counts of batches can be added."""
  nearest = _nearest(bins.centers, np.asarray(samples, np.float64))
  return np.bincount(nearest, minlength=len(bins.counts))


def compare_bins(reference: np.ndarray, counts: np.ndarray, level: float = LEVEL) -> BinScore:
  """NDB and JSD of two histograms.

  The test is two-sided, on the difference of two proportions: `z = (p - q) / sqrt(s (1 - s)
  (1/n + 1/m))` with the pooled share s. A bin that is empty in both does not differ.

  Args:
    reference: counts of reference samples `[K]`, as in `Bins.counts`.
    counts: counts of other samples `[K]`, from `count_bins`.
    level: significance level of the test of each bin.

  Raises:
    ValueError: the histograms have different lengths, or one is empty.
  """
  reference, counts = np.asarray(reference, np.float64), np.asarray(counts, np.float64)
  n, m = reference.sum(), counts.sum()
  if reference.shape != counts.shape or not n or not m:
    raise ValueError(
      f'{n:.0f} samples in {len(reference)} bins and {m:.0f} in {len(counts)} cannot be compared'
    )
  p, q = reference / n, counts / m
  pooled = (reference + counts) / (n + m)
  error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
  critical = statistics.NormalDist().inv_cdf(1 - level / 2)
  different = np.abs(p - q) > critical * error
  ndb = int(different.sum())
  jsd = (_relative_entropy(p, (p + q) / 2) + _relative_entropy(q, (p + q) / 2)) / 2
  return BinScore(ndb, ndb / len(p), jsd, different)


def _spread(samples: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
  """First centres `[K, D]`: samples, drawn proportionally to the squared distance to the others."""
  nearest = np.full(len(samples), np.inf)
  chosen = []
  while len(chosen) < count and nearest.any():
    # The first draw is uniform, because all distances are infinite.
    cumulative = np.cumsum(np.where(np.isinf(nearest), 1.0, nearest))
    draw = random.random_sample() * cumulative[-1]
    chosen.append(int(np.searchsorted(cumulative, draw, side='right')))
    distance = np.sum(np.square(samples - samples[chosen[-1]]), axis=1)
    nearest = np.minimum(nearest, distance)
  if len(chosen) < count:
    raise ValueError(f'{count} bins need as many different samples; there are {len(chosen)}')
  return samples[chosen]


def _nearest(centers: np.ndarray, samples: np.ndarray) -> np.ndarray:
  """Index `[N]` of the centre nearest to each sample; the first one in case of ties."""
  # |x - c|^2 without |x|^2, which is the same for all centres.
  return np.argmin(np.sum(np.square(centers), axis=1) - samples @ (2 * centers.T), axis=1)


def _mean(members: np.ndarray, empty: np.ndarray) -> np.ndarray:
  return members.mean(axis=0) if len(members) else empty


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
  """Kullback-Leibler divergence of histograms in nats; q must be above 0 where p is."""
  positive = p > 0
  return float(np.sum(p[positive] * np.log(p[positive] / q[positive])))
