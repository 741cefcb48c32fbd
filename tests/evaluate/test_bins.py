"""NDB and JSD: K-means bins, the test per bin, and its significance level."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.cluster.vq
import scipy.spatial.distance
import scipy.stats

from step_jax.evaluate import bins
from step_jax.evaluate.bins import compare_bins, count_bins, fit_bins


def blobs(counts, seed=0, spread=0.1):
  """Samples around corners of a square grid, with one count per corner."""
  random = np.random.RandomState(seed)
  corners = np.stack(np.divmod(np.arange(len(counts)), 4), axis=1)
  parts = [
    c + spread * random.standard_normal((n, 2)) for c, n in zip(corners, counts, strict=True)
  ]
  return np.concatenate(parts)


def test_separate_clusters_become_bins_by_size():
  found = fit_bins(blobs([30, 90, 60, 120]), 4)
  np.testing.assert_array_equal(found.counts, [120, 90, 60, 30])
  np.testing.assert_allclose(found.centers, [[0, 3], [0, 1], [0, 2], [0, 0]], atol=0.1)


def test_bins_are_the_same_each_time_and_others_for_another_seed():
  samples = np.random.RandomState(0).standard_normal((300, 5))
  first, again, other = (fit_bins(samples, 12, seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(first.centers, again.centers)
  np.testing.assert_array_equal(first.counts, again.counts)
  assert not np.allclose(first.centers, other.centers)
  assert (np.diff(first.counts) <= 0).all()


def test_k_means_is_that_of_scipy_from_the_same_start(monkeypatch):
  samples = np.random.RandomState(3).uniform(size=(400, 3))
  start = samples[:10]
  monkeypatch.setattr(bins, '_spread', lambda *unused: start)
  found = fit_bins(samples, 10)
  centers, labels = scipy.cluster.vq.kmeans2(samples, start, iter=100, minit='matrix')
  order = np.argsort(-np.bincount(labels), kind='stable')
  np.testing.assert_allclose(found.centers, centers[order], rtol=1e-10)
  np.testing.assert_array_equal(found.counts, np.bincount(labels)[order])


def test_first_centres_are_spread_out():
  """k-means++ finds all 8 distant corners; uniform sampling nearly always misses some."""
  samples = blobs([500, 3, 3, 3, 3, 3, 3, 3], spread=0.001)
  assert len(np.unique(np.rint(fit_bins(samples, 8).centers), axis=0)) == 8


def test_counts_of_batches_add_up_and_the_reference_counts_as_itself():
  samples = np.random.RandomState(0).standard_normal((200, 4)).astype(np.float32)
  found = fit_bins(samples, 7)
  np.testing.assert_array_equal(count_bins(found, samples), found.counts)
  parts = sum(count_bins(found, part) for part in np.split(samples, [11, 150]))
  np.testing.assert_array_equal(parts, found.counts)
  score = compare_bins(found.counts, parts)
  assert (score.ndb, score.share, score.jsd) == (0, 0, 0)


@settings(max_examples=50, deadline=None)
@given(
  counts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=2, max_size=12),
  level=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_scores_match_scipy(counts, level):
  reference, others = np.array(counts).T
  if not reference.sum() or not others.sum():
    return
  score = compare_bins(reference, others, level)
  n, m = reference.sum(), others.sum()
  expected = []
  for a, b in counts:
    # The squared z-test of two proportions is Pearson's chi-squared of the 2x2 table.
    table = [[a, n - a], [b, m - b]]
    testable = 0 < a + b < n + m
    p = scipy.stats.chi2_contingency(table, correction=False).pvalue if testable else 1
    expected.append(p < level)
  np.testing.assert_array_equal(score.different, expected)
  assert score.ndb == sum(expected) and score.share == sum(expected) / len(counts)
  divergence = scipy.spatial.distance.jensenshannon(reference / n, others / m) ** 2
  np.testing.assert_allclose(score.jsd, divergence, atol=1e-9)
  assert -1e-12 <= score.jsd <= np.log(2) + 1e-12
  np.testing.assert_allclose(compare_bins(others, reference, level).jsd, score.jsd, atol=1e-12)


def test_equal_distributions_differ_in_as_many_bins_as_the_level_says():
  random = np.random.RandomState(0)
  found = fit_bins(random.standard_normal((4000, 3)), 40)
  shares = [
    compare_bins(found.counts, count_bins(found, random.standard_normal((1000, 3)))).share
    for _ in range(20)
  ]
  assert 0.02 < np.mean(shares) < 0.09


def test_missing_kinds_of_images_are_detected():
  found = fit_bins(blobs([200] * 8), 8)
  all_kinds = compare_bins(found.counts, count_bins(found, blobs([50] * 8, seed=1)))
  half = compare_bins(found.counts, count_bins(found, blobs([100] * 4 + [0] * 4, seed=1)))
  assert all_kinds.ndb == 0 and all_kinds.jsd < 1e-6
  assert half.ndb == 8 and half.jsd > 0.2
  disjoint = compare_bins([10, 0], [0, 10])
  np.testing.assert_allclose(disjoint.jsd, np.log(2))


def test_invalid_inputs_of_bins_are_refused():
  with pytest.raises(ValueError, match='5 bins need as many different samples; there are 2'):
    fit_bins(np.repeat([[0.0], [1.0]], 10, axis=0), 5)
  with pytest.raises(ValueError, match='there are 0'):
    fit_bins(np.empty((0, 3)), 2)
  for counts in ([1, 2, 3], [0, 0]):
    with pytest.raises(ValueError, match='cannot be compared'):
      compare_bins([1, 2], counts)
