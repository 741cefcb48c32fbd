"""Neighbours equal those of brute force; the table is cached, and mined again when necessary."""

import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from step_jax import images, losses, weights
from step_jax.data import pipeline
from step_jax.errors import ConfigError, DataError
from step_jax.methods.step.mining import styles, table
from step_jax.methods.step.search import neighbors


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


def test_scenes_are_avoided_only_among_the_nearest():
  rng = np.random.default_rng(1)
  vectors, groups = rng.standard_normal((50, 8)).astype(np.float32), rng.integers(0, 4, 50)
  found = neighbors.find_neighbors(vectors, 7, 9, groups)
  nearest, farthest = brute_force(vectors, 7, 9, groups)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)


@settings(max_examples=20, deadline=None)
@given(
  seed=st.integers(0, 10_000),
  count=st.integers(12, 60),
  dtype=st.sampled_from(['float32', 'bfloat16']),
)
def test_ties_go_by_index(seed, count, dtype):
  # With three values and few dimensions, most rows have duplicates and most distances tie.
  vectors = np.random.default_rng(seed).integers(0, 3, (count, 3)).astype(np.float32)
  found = neighbors.find_neighbors(vectors, 5, 6, block=16, dtype=dtype)
  nearest, farthest = brute_force(vectors, 5, 6)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)


def test_more_equals_than_spare_candidates():
  rng = np.random.default_rng(0)
  vectors = rng.standard_normal((200, 6)).astype(np.float32)
  vectors[50:150] = 9  # A hundred blank images, the farthest from all others.
  found = neighbors.find_neighbors(vectors, 3, 13, block=64)
  nearest, farthest = brute_force(vectors, 3, 13)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)


def test_outliers_of_equal_length_around_a_tight_bulk():
  # Distances to the outliers differ by less than the rounding of their squared lengths. Each has an
  # opposite, so that the center is that of the bulk.
  rng = np.random.default_rng(0)
  outliers = rng.standard_normal((15, 16))
  outliers *= 1e4 / np.linalg.norm(outliers, axis=1, keepdims=True)
  bulk = 1e-3 * rng.standard_normal((170, 16))
  vectors = np.concatenate([bulk, outliers, -outliers]).astype(np.float32)
  found = neighbors.find_neighbors(vectors, 5, 13)
  nearest, farthest = brute_force(vectors, 5, 13)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)


@settings(max_examples=50, deadline=None)
@given(
  seed=st.integers(0, 10_000),
  count=st.integers(15, 45),
  width=st.sampled_from([1, 7, 60]),
  scales=st.sampled_from([(1.0,), (0.0, 1.0), (1e-3, 1e4), (1e-2, 1e4, 1e5), (0.1, 30.0, 1e4)]),
  equal_lengths=st.booleans(),
  offset=st.sampled_from([0.0, 1e3]),
  dtype=st.sampled_from(['float32', 'bfloat16']),
)
def test_neighbours_are_exact_where_norms_dominate(
  seed, count, width, scales, equal_lengths, offset, dtype
):
  """Clusters and shells with very different sizes, far from the origin."""
  rng = np.random.default_rng(seed)
  vectors = rng.standard_normal((count, width))
  if equal_lengths:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  vectors *= rng.choice(scales, (count, 1))
  # With opposites, the center is that of the smallest vectors.
  vectors = (offset + np.concatenate([vectors, -vectors])).astype(np.float32)
  found = neighbors.find_neighbors(vectors, 5, 6, block=32, dtype=dtype)
  nearest, farthest = brute_force(vectors, 5, 6)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_array_equal(found.farthest, farthest)


def test_coarse_products_do_not_change_the_result():
  vectors = np.random.default_rng(2).standard_normal((300, 40)).astype(np.float32)
  exact = neighbors.find_neighbors(vectors, 5, 6)
  coarse = neighbors.find_neighbors(vectors, 5, 6, dtype='bfloat16')
  np.testing.assert_array_equal(exact.nearest, coarse.nearest)
  np.testing.assert_array_equal(exact.farthest, coarse.farthest)


def test_an_interrupted_search_is_resumed(tmp_path, monkeypatch):
  vectors = np.random.default_rng(3).standard_normal((90, 7)).astype(np.float32)
  expected = neighbors.find_neighbors(vectors, 5, 6, block=16)
  multiplied = []
  products = neighbors._Search._products

  def stop_at_twelve(self, queries, rows):
    multiplied.append(rows)
    if len(multiplied) == 12:
      raise KeyboardInterrupt
    return products(self, queries, rows)

  monkeypatch.setattr(neighbors._Search, '_products', stop_at_twelve)
  path = tmp_path / 'search.npz'
  with pytest.raises(KeyboardInterrupt):
    neighbors.find_neighbors(vectors, 5, 6, block=16, progress=path)
  found = neighbors.find_neighbors(vectors, 5, 6, block=16, progress=path)
  np.testing.assert_array_equal(found.nearest, expected.nearest)
  np.testing.assert_array_equal(found.farthest, expected.farthest)
  # 21 tiles; the six of the first block row and the five of the second are not recomputed.
  assert len(multiplied) == 12 + 10
  assert not list(tmp_path.iterdir())


def test_pairs_of_blocks_are_multiplied_once(monkeypatch):
  shapes = []
  add = neighbors._add_products
  monkeypatch.setattr(
    neighbors, '_add_products', lambda *args: shapes.append(args[1].shape) or add(*args)
  )
  rng = np.random.default_rng(4)
  vectors = rng.standard_normal((100, 9)) @ rng.standard_normal((9, 2 * neighbors._CHUNK))
  vectors = vectors.astype(np.float32)
  neighbors.find_neighbors(vectors, 3, 3, block=25)
  # Ten pairs of four blocks, in two chunks of columns each: no product uses all rows or columns.
  assert shapes == [(25, neighbors._CHUNK)] * 20


def test_eight_devices_find_the_same(tmp_path):
  script = """
import numpy as np, sys
from step_jax.methods.step.search import neighbors
vectors = np.random.default_rng(5).standard_normal((90, 50)).astype(np.float32)
found = neighbors.find_neighbors(vectors, 5, 6, block=30)
np.savez(sys.argv[1], nearest=found.nearest, farthest=found.farthest)
"""
  flags = os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8'
  environment = {**os.environ, 'XLA_FLAGS': flags}
  path = tmp_path / 'found.npz'
  subprocess.run([sys.executable, '-c', script, str(path)], check=True, env=environment)
  vectors = np.random.default_rng(5).standard_normal((90, 50)).astype(np.float32)
  nearest, farthest = brute_force(vectors, 5, 6)
  with np.load(path) as found:
    np.testing.assert_array_equal(found['nearest'], nearest)
    np.testing.assert_array_equal(found['farthest'], farthest)


def test_more_neighbours_than_there_are():
  with pytest.raises(ValueError, match='at most 2 allowed nearest'):
    neighbors.find_neighbors(np.zeros((3, 2), np.float32), 3, 1)


@pytest.fixture(scope='module')
def features():
  return weights.load_features('squeezenet1_1', ['conv1'], 'random')


def pictures(shapes):
  rng = np.random.default_rng(0)
  return [{'target': rng.integers(0, 256, (*shape, 3), dtype=np.uint8)} for shape in shapes]


def test_vectors_of_pictures_of_mixed_sizes(tmp_path, features):
  examples = pictures([(32, 32), (24, 40), (32, 32)])
  batches = lambda start: pipeline.eval_batches(iter(examples[start:]), 2)
  vectors = styles.style_vectors(features.module, features.params, batches, 3, tmp_path)
  for picture, vector in zip(examples, vectors[:], strict=True):
    x = images.to_float(picture['target'][None])
    taps = features.module.apply({'params': features.params}, x)
    expected = losses.style_vector({tap: losses.gram_matrix(f) for tap, f in taps.items()})
    np.testing.assert_allclose(vector, expected[0], rtol=1e-4, atol=1e-4)


def test_interrupted_vectors_are_resumed(tmp_path, features):
  examples = pictures([(32, 32), (24, 40), *[(32, 32)] * 5])
  seen = []

  def batches(start, stop=None):
    seen.append(start)
    for i, batch in enumerate(pipeline.eval_batches(iter(examples[start:]), 2)):
      if i == stop:
        raise KeyboardInterrupt
      yield batch

  make = lambda batches, name: styles.style_vectors(
    features.module, features.params, batches, 7, tmp_path / name
  )[:]
  for name in ('whole', 'parts'):
    (tmp_path / name).mkdir()
  expected = make(batches, 'whole')
  with pytest.raises(KeyboardInterrupt):
    make(lambda start: batches(start, stop=2), 'parts')
  np.testing.assert_allclose(make(batches, 'parts'), expected, rtol=1e-5, atol=1e-6)
  # Images 0, 2, 3 and 4 are done; the batch of the odd one is still pending.
  assert seen == [0, 0, 1]


def test_projected_distances_are_nearly_exact(tmp_path, features):
  examples = pictures([(32, 32)] * 12)
  batches = lambda start: pipeline.eval_batches(iter(examples[start:]), 2)
  (tmp_path / 'short').mkdir()
  whole = styles.style_vectors(features.module, features.params, batches, 12, tmp_path)[:]
  short = styles.style_vectors(
    features.module, features.params, batches, 12, tmp_path / 'short', projection=512
  )[:]
  assert short.shape == (12, 512)
  distance = lambda x: np.square(x[:, None] - x[None]).sum(-1)[np.triu_indices(12, 1)]
  ratio = distance(short) / distance(whole)
  # 66 distances, each with a relative standard deviation of sqrt(2 / 512) = 0.06 at most.
  assert abs(ratio.mean() - 1) < 0.06 and ratio.std() < 0.1


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
  mine = lambda scratch: neighbors.find_neighbors(vectors, 2, 3)
  path = tmp_path / 'stage' / 'neighbors.npz'
  first = table.load_or_mine(path, 'key', mine)
  kept = table.load_or_mine(path, 'key', None)
  np.testing.assert_array_equal(first.nearest, kept.nearest)
  calls = []
  table.load_or_mine(path, 'another key', lambda scratch: calls.append(1) or mine(scratch))
  assert calls and [p.name for p in path.parent.iterdir()] == ['neighbors.npz']


def test_hosts_that_share_a_folder_do_not_conflict(tmp_path, monkeypatch):
  vectors = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
  folders = []

  def mine(scratch):
    folders.append(scratch)
    if len(folders) == 1:
      # While the first host mines, the second starts and finishes without writing anything.
      with monkeypatch.context() as patch:
        patch.setattr(jax, 'process_index', lambda: 1)
        table.load_or_mine(tmp_path / 'neighbors.npz', 'key', mine)
      assert [path.name for path in tmp_path.iterdir()] == [scratch.name]
    return neighbors.find_neighbors(vectors, 2, 3)

  table.load_or_mine(tmp_path / 'neighbors.npz', 'key', mine)
  assert folders[0] != folders[1]
  assert [path.name for path in tmp_path.iterdir()] == ['neighbors.npz']
