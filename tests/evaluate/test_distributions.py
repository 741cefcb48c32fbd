"""Fréchet and kernel distances against SciPy and brute force; their invariants and memory."""

import functools
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.linalg

from step_jax.evaluate import distributions
from step_jax.evaluate.distributions import (
  KernelDistance,
  accumulate,
  frechet_distance,
  merge,
  moments,
  squared_mmd,
)

SEEDS = st.integers(0, 9999)


def features(seed, count=40, length=6):
  """Correlated features with nonzero mean, like those of a network."""
  random = np.random.RandomState(seed)
  mixed = random.standard_normal((count, length)) @ random.standard_normal((length, length))
  return mixed + 3 * random.standard_normal(length)


def rotation(seed, length):
  return np.linalg.qr(np.random.RandomState(seed).standard_normal((length, length)))[0]


def assert_same(a, b):
  assert a.count == b.count
  np.testing.assert_allclose(a.mean, b.mean, rtol=1e-10, atol=1e-10)
  np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-8, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, cuts=st.lists(st.integers(0, 40), max_size=4), offset=st.sampled_from([0, 1e4]))
def test_a_stream_gives_what_numpy_gives_at_once(seed, cuts, offset):
  x = features(seed) + offset
  found = accumulate(iter(np.split(x, sorted(cuts))))
  assert found.count == 40 and found.mean.dtype == found.scatter.dtype == np.float64
  np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-6, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_merging_is_associative_and_commutative_and_nothing_is_neutral(seed):
  a, b, c = (moments(features(seed + i, 5 + 7 * i)) for i in range(3))
  assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))
  assert_same(merge(a, b), merge(b, a))
  nothing = moments(np.empty((0, 6)))
  assert_same(merge(a, nothing), a)
  assert_same(merge(nothing, a), a)
  assert merge(nothing, nothing).count == 0


def test_float32_features_are_summed_in_float64():
  x = np.random.RandomState(0).uniform(1000, 1001, (5000, 2)).astype(np.float32)
  expected = np.cov(x.astype(np.float64), rowvar=False)
  np.testing.assert_allclose(accumulate(np.split(x, 50)).covariance, expected, rtol=1e-9)


@pytest.mark.parametrize('length', [1, 8, 64])
def test_frechet_matches_scipy(length):
  a, b = moments(features(1, 300, length)), moments(features(2, 200, length))
  root = np.real(scipy.linalg.sqrtm(a.covariance @ b.covariance))
  expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root)
  np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-9)


def test_frechet_of_one_dimension_is_that_of_means_and_deviations():
  x, y = features(0, 30, 1), features(1, 20, 1)
  expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
  np.testing.assert_allclose(frechet_distance(moments(x), moments(y)), expected, rtol=1e-12)


@pytest.mark.parametrize('count', [5, 200])
def test_frechet_of_fewer_pictures_than_features(count):
  """Features in a subspace have the same distance as in few dimensions."""
  few = [features(seed, count, 8) for seed in (1, 2)]
  turn = rotation(0, 256)[:8]
  many = [moments(x @ turn) for x in few]
  expected = frechet_distance(*map(moments, few))
  assert np.linalg.matrix_rank(many[0].covariance) < 9
  np.testing.assert_allclose(frechet_distance(*many), expected, rtol=1e-9)


def test_frechet_of_supports_that_do_not_meet():
  """Square roots of rounding errors must not add up."""
  turn = rotation(0, 200)
  x, y = features(0, 300, 100) @ turn[:100], features(1, 300, 100) @ turn[100:]
  a, b = moments(x), moments(y)
  expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance)
  np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-12)
  constant = moments(np.zeros((5, 3)))
  assert frechet_distance(constant, constant) == 0


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.sampled_from([4, 50]))
def test_frechet_is_symmetric_and_blind_to_a_common_rotation_and_shift(seed, count):
  x, y = features(seed, count), features(seed + 1, count)
  distance = frechet_distance(moments(x), moments(y))
  turn, shift = rotation(seed, 6), features(seed + 2, 1)
  moved = frechet_distance(moments(x @ turn + shift), moments(y @ turn + shift))
  np.testing.assert_allclose(frechet_distance(moments(y), moments(x)), distance, rtol=1e-9)
  np.testing.assert_allclose(moved, distance, rtol=1e-6)
  scale = np.trace(moments(x).covariance)
  assert 0 <= frechet_distance(moments(x), moments(x[::-1])) < 1e-6 * scale


def test_frechet_refuses_what_has_no_distance():
  a = moments(features(0))
  with pytest.raises(ValueError, match='two feature vectors or more, not 1'):
    frechet_distance(a, moments(features(0, 1)))
  with pytest.raises(ValueError, match='length 6 and 5'):
    frechet_distance(a, moments(features(0, 40, 5)))
  with pytest.raises(ValueError, match='empty'):
    accumulate([])


def brute_force(x, y):
  """The estimator term by term."""
  kernel = lambda a, b: (sum(s * t for s, t in zip(a, b, strict=True)) / len(a) + 1) ** 3
  n = len(x)
  within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(n) for j in range(n) if i != j)
  across = sum(kernel(a, b) for a in x for b in y)
  return within / (n * (n - 1)) - 2 * across / n**2


def test_squared_mmd_and_its_jackknife_match_brute_force():
  x, y = features(0, 9, 3), features(1, 9, 3)
  value, error = squared_mmd(x.astype(np.float32), y.astype(np.float32))
  np.testing.assert_allclose(value, brute_force(x, y), rtol=1e-5)
  value, error = squared_mmd(x, y)
  np.testing.assert_allclose(value, brute_force(x, y), rtol=1e-10)
  left = [brute_force(np.delete(x, i, axis=0), np.delete(y, i, axis=0)) for i in range(9)]
  np.testing.assert_allclose(error, np.sqrt(8 / 9 * np.sum((left - np.mean(left)) ** 2)), rtol=1e-8)


def draws(shift, count=400, size=40):
  random = np.random.RandomState(5)
  return np.array(
    [
      squared_mmd(random.standard_normal((size, 4)), random.standard_normal((size, 4)) + shift)
      for _ in range(count)
    ]
  )


def test_squared_mmd_is_unbiased_and_its_error_is_honest():
  values, errors = draws(0).T
  assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
  assert values.std() < errors.mean() < 2 * values.std()  # The factor sqrt(2) of the docstring.
  values, errors = draws(1.0).T
  assert 0.8 < errors.mean() / values.std() < 1.3
  # E |x - y|^2 grows by the shift; means over small and large samples agree.
  large = draws(1.0, count=10, size=1000)[:, 0].mean()
  np.testing.assert_allclose(values.mean(), large, rtol=0.1)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 47), max_size=5), block=st.sampled_from([5, 10, 23, 100]))
def test_kernel_distance_is_by_consecutive_blocks_however_the_pairs_come(cuts, block):
  x, y = features(0, 47), features(1, 47)
  distance = KernelDistance(block)
  for a, b in zip(np.split(x, sorted(cuts)), np.split(y, sorted(cuts)), strict=True):
    distance.add(a, b)
  starts = [s for s in range(0, 47, block) if 47 - s >= 3]
  ends = [*starts[1:], 47]
  parts = [squared_mmd(x[s:e], y[s:e]) for s, e in zip(starts, ends, strict=True)]
  sizes = np.subtract(ends, starts) / 47
  found = distance.score()
  assert found.pairs == 47 and distance.score() == found
  np.testing.assert_allclose(found.value, np.dot(sizes, [value for value, _ in parts]), rtol=1e-10)
  error = np.sqrt(np.sum([(s * e) ** 2 for s, (_, e) in zip(sizes, parts, strict=True)]))
  np.testing.assert_allclose(found.standard_error, error, rtol=1e-10)


def test_no_pair_is_lost_at_the_end():
  """One pair more than a block is included in the block."""
  x, y = features(0, 11), features(1, 11)
  distance = KernelDistance(10)
  distance.add(x, y)
  assert distance.score().pairs == 11
  assert distance.score().value == squared_mmd(x, y)[0]
  assert distributions.BLOCK == 1000


def test_kernel_distance_refuses_what_it_cannot_compare():
  distance = KernelDistance()
  with pytest.raises(ValueError, match='at least|or more'):
    distance.score()
  distance.add(features(0, 2), features(1, 2))
  with pytest.raises(ValueError, match='3 or more'):
    distance.score()
  with pytest.raises(ValueError, match='in pairs'):
    distance.add(features(0, 3), features(1, 4))


def peak(batches):
  """Peak memory of both distances in bytes, for a stream of batches of 50."""
  random = np.random.RandomState(0)
  tracemalloc.start()
  kernel = KernelDistance(100)

  def stream():
    for _ in range(batches):
      x = random.standard_normal((50, 32)).astype(np.float32)
      kernel.add(x, x[::-1])
      yield x

  found = accumulate(stream())
  assert found.count == kernel.score().pairs == 50 * batches
  bytes_held = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  return bytes_held


def test_memory_does_not_grow_with_the_number_of_pictures():
  peak(10)
  assert peak(500) < 1.1 * peak(10) + 50_000


def test_a_large_batch_is_released():
  x = features(0, 20_003, 8)
  kernel = KernelDistance(10)
  tracemalloc.start()
  kernel.add(x, x)
  assert tracemalloc.get_traced_memory()[0] < x.nbytes / 2
  tracemalloc.stop()
  assert kernel.score().pairs == 20_003


def test_moments_of_many_streams_are_merged_in_any_order():
  """For example, streams of the hosts of a pod."""
  parts = [moments(features(seed, 3 + seed)) for seed in range(6)]
  assert_same(functools.reduce(merge, parts), functools.reduce(merge, parts[::-1]))
