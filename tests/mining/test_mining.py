"""Neighbours are the brute-force ones; the table is kept, and mined anew when it must be."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from step_jax import images, losses, weights
from step_jax.data import pipeline
from step_jax.errors import ConfigError, DataError
from step_jax.mining import neighbors, styles, table


def brute_force(vectors, near, far, groups=None):
  difference = vectors[:, None].astype(np.float64) - vectors[None]
  distance = np.square(difference).sum(-1)
  groups = np.arange(len(vectors)) if groups is None else np.asarray(groups)
  nearest, farthest = [], []
  for i, row in enumerate(distance):
    order = np.argsort(row, kind='stable')
    nearest.append([j for j in order if groups[j] != groups[i]][:near])
    order = np.argsort(-row, kind='stable')
    farthest.append([j for j in order if j != i][:far])
  return np.array(nearest), np.array(farthest)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(12, 60), block=st.sampled_from([5, 16, 64]))
def test_neighbours_are_exact(seed, count, block):
  vectors = np.random.default_rng(seed).standard_normal((count, 40)).astype(np.float32)
  found = neighbors.find_neighbors(vectors, 5, 6, block=block)
  nearest, farthest = brute_force(vectors, 5, 6)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)


def test_near_copies_far_from_the_origin_are_told_apart():
  rng = np.random.default_rng(0)
  vectors = (1000 + rng.standard_normal((40, 300))).astype(np.float32)
  vectors[1] = vectors[0]
  vectors[2] = vectors[0] + 1e-3
  found = neighbors.find_neighbors(vectors, 3, 3)
  nearest, farthest = brute_force(vectors, 3, 3)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)
  assert found.nearest_distance[0, 0] == 0 and found.nearest[0, 0] == 1


def test_scenes_are_avoided_among_the_nearest_alone():
  rng = np.random.default_rng(1)
  vectors, groups = rng.standard_normal((50, 8)).astype(np.float32), rng.integers(0, 4, 50)
  found = neighbors.find_neighbors(vectors, 7, 9, groups)
  nearest, farthest = brute_force(vectors, 7, 9, groups)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)


def test_more_neighbours_than_there_are():
  with pytest.raises(ValueError, match='at most 2 allowed nearest'):
    neighbors.find_neighbors(np.zeros((3, 2), np.float32), 3, 1)


def test_vectors_of_pictures_of_mixed_sizes(tmp_path):
  features = weights.load_features('squeezenet1_1', ['conv1'], 'random')
  rng = np.random.default_rng(0)
  shapes = [(32, 32), (24, 40), (32, 32)]
  pictures = [{'target': rng.integers(0, 256, (*s, 3), dtype=np.uint8)} for s in shapes]
  batches = pipeline.eval_batches(iter(pictures), 2)
  vectors = styles.style_vectors(
    features.module, features.params, batches, 3, tmp_path / 'vectors.npy'
  )
  for picture, vector in zip(pictures, vectors, strict=True):
    x = images.to_float(picture['target'][None])
    taps = features.module.apply({'params': features.params}, x)
    expected = losses.style_vector({tap: losses.gram_matrix(f) for tap, f in taps.items()})
    np.testing.assert_allclose(vector, expected[0], rtol=1e-4, atol=1e-4)


def test_scene_is_read_from_the_name():
  names = ['train/12a.jpg', 'train/13b.jpg']
  assert table.scenes(names, r'(.)\.[^.]*$') == ['a', 'b']
  assert table.scenes(names, '') is None
  for pattern, message in (('(x)', 'finds no scene'), ('[', 'no valid pattern'), ('a', 'no scene')):
    with pytest.raises(ConfigError, match=message):
      table.scenes(names, pattern)


@pytest.mark.parametrize(
  ('count', 'asked', 'given'),
  [(400, (5, 13), (5, 13)), (10, (5, 13), (4, 5)), (3, (5, 13), (1, 1))],
)
def test_small_sets_get_fewer_neighbours(count, asked, given):
  assert table.fit_counts(count, *asked, None) == given


def test_too_few_pictures_for_triplets():
  for count, groups in ((2, None), (4, ['a'] * 4)):
    with pytest.raises(DataError, match='give no triplets'):
      table.fit_counts(count, 5, 13, groups)


def test_the_table_is_kept(tmp_path):
  vectors = np.asarray(jax.random.normal(jax.random.key(0), (30, 4)))
  mine = lambda: neighbors.find_neighbors(vectors, 2, 3)
  path = tmp_path / 'stage' / 'neighbors.npz'
  first = table.load_or_mine(path, 'key', mine)
  kept = table.load_or_mine(path, 'key', None)
  np.testing.assert_array_equal(first.nearest, kept.nearest)
  np.testing.assert_array_equal(first.farthest_distance, kept.farthest_distance)
  calls = []
  table.load_or_mine(path, 'another key', lambda: calls.append(1) or mine())
  assert calls and [p.name for p in path.parent.iterdir()] == ['neighbors.npz']
