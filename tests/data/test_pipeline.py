"""Batches depend only on the seed, not on the start or number of hosts, and miss no example."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np

from step_jax.data import augment, pipeline
from step_jax.methods.step.mining import triplets


def numbers(count, **options):
  load = lambda index, rng: {'index': np.int64(index), 'draw': rng.integers(1 << 30)}
  batches = pipeline.train_batches(np.arange(7), load, **options)
  return list(itertools.islice(batches, count))


def same(left, right):
  return all(np.array_equal(a[key], b[key]) for a, b in zip(left, right, strict=True) for key in a)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), start=st.integers(0, 20), batch=st.integers(1, 5))
def test_batches_depend_only_on_their_number(seed, start, batch):
  whole = numbers(start + 3, batch_size=batch, seed=seed)
  late = numbers(3, batch_size=batch, seed=seed, start=start)
  assert same(whole[start:], late)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), count=st.sampled_from([2, 3, 4]), start=st.integers(0, 5))
def test_hosts_share_the_batches_of_one(seed, count, start):
  options = dict(batch_size=12, seed=seed, start=start)
  whole = numbers(3, **options)
  parts = [numbers(3, shard=pipeline.Shard(index, count), **options) for index in range(count)]
  for step, batch in enumerate(whole):
    joined = np.concatenate([part[step]['index'] for part in parts])
    np.testing.assert_array_equal(joined, batch['index'])
    joined = np.concatenate([part[step]['draw'] for part in parts])
    np.testing.assert_array_equal(joined, batch['draw'])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), batch=st.integers(1, 6))
def test_every_epoch_shows_every_example_once(seed, batch):
  stream = np.concatenate([b['index'] for b in numbers(14, batch_size=batch, seed=seed)])
  epochs = [stream[i : i + 7] for i in range(0, len(stream) - 6, 7)]
  assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
  if len(epochs) > 3:
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_seeds_differ():
  assert not same(numbers(2, batch_size=4, seed=0), numbers(2, batch_size=4, seed=1))


def pictures(sizes):
  for i, (height, width) in enumerate(sizes):
    yield {'source': np.full((height, width, 3), i, np.uint8)}


@settings(max_examples=25, deadline=None)
@given(
  sizes=st.lists(st.sampled_from([(4, 6), (6, 4), (8, 8)]), min_size=1, max_size=12),
  batch=st.integers(1, 5),
)
def test_evaluation_sees_every_picture_once(sizes, batch):
  seen = []
  for found in pipeline.eval_batches(pictures(sizes), batch):
    assert found['source'].shape[0] == len(found['mask']) == batch
    for index, mask, image in zip(found['index'], found['mask'], found['source'], strict=True):
      assert image.shape == (*sizes[index], 3) and (image == index).all()
      seen += [int(index)] * int(mask)
  assert sorted(seen) == list(range(len(sizes)))


def test_evaluation_crops_the_middle():
  split = [{'A': np.arange(5 * 7 * 3).reshape(5, 7, 3).astype(np.uint8)}]
  (whole,) = pipeline.eval_examples(split, {'target': 'A'}, (0, 0))
  assert whole['target'].shape == (5, 7, 3)
  (middle,) = pipeline.eval_examples(split, {'target': 'A'}, (3, 3))
  np.testing.assert_array_equal(middle['target'], split[0]['A'][1:4, 2:5])
  (tall,) = pipeline.eval_examples(split, {'target': 'A'}, (9, 3))
  assert tall['target'].shape == (5, 3, 3)


def coordinates(height, width):
  """An image whose channels are row and column numbers."""
  rows, columns = np.mgrid[:height, :width]
  return np.dstack([rows, columns, rows]).astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(
  height=st.integers(8, 20),
  width=st.integers(8, 20),
  crop=st.tuples(st.integers(1, 8), st.integers(1, 8)),
  flip=st.booleans(),
  seed=st.integers(0, 999),
)
def test_crops_are_whole_and_the_same_for_both(height, width, crop, flip, seed):
  picture = coordinates(height, width)
  view = augment.augment(
    {'source': picture, 'target': 255 - picture}, np.random.default_rng(seed), crop, flip=flip
  )
  assert view['source'].shape == (*crop, 3)
  np.testing.assert_array_equal(view['source'], 255 - view['target'])
  rows, columns = view['source'][:, 0, 0].astype(int), view['source'][0, :, 1].astype(int)
  assert (np.diff(rows) == 1).all() and (abs(np.diff(columns)) == 1).all()


def test_every_crop_is_reached():
  picture = coordinates(4, 5)
  corners = {
    tuple(augment.augment({'x': picture}, np.random.default_rng(i), (3, 3))['x'][0, 0, :2])
    for i in range(200)
  }
  assert corners == {(top, left) for top in range(2) for left in range(3)}


def test_rescaling_follows_its_probabilities():
  rule = ((0.5, 1.25), (0.25, 1.5))
  draws = [augment._draw_factor(np.random.default_rng(i), rule) for i in range(2000)]
  for factor, share in ((1.25, 0.5), (1.5, 0.25), (1.0, 0.25)):
    assert abs(np.mean(np.equal(draws, factor)) - share) < 0.05


def test_triplets_come_from_the_table():
  split = [{'A': np.full((6, 6, 3), i, np.uint8)} for i in range(6)]
  nearest, farthest = np.array([[1, 2]] * 6), np.array([[4, 5]] * 6)
  load = triplets.loader(split, 'A', nearest, farthest, (4, 4))
  seen = {role: set() for role in triplets.ROLES}
  for seed in range(40):
    found = load(3, np.random.default_rng(seed))
    for role, image in found.items():
      assert image.shape == (4, 4, 3)
      seen[role].add(int(image[0, 0, 0]))
  assert seen == {'anchor': {3}, 'positive': {1, 2}, 'negative': {4, 5}}
