"""Streams of images: complete, in order, and independent of the number of devices."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from step_jax import losses, weights
from step_jax.data import pipeline
from step_jax.evaluate import distributions, diversity, lpips, realism, scores
from step_jax.models import inception


def neighbours(batch_size):
  """Index of the next image in the part of the same device, for each image."""

  def function(batch):
    parts = batch['x'][:, 0, 0].reshape(-1, batch_size)
    return {'next': np.roll(parts, -1, axis=1).reshape(-1), 'x': batch['x']}

  return function


@settings(max_examples=40, deadline=None)
@given(
  sizes=st.lists(st.sampled_from([(4, 6), (6, 4)]), min_size=1, max_size=30),
  batch_size=st.integers(1, 4),
  parts=st.integers(2, 8),
)
def test_images_are_in_order_with_the_same_neighbours_on_any_number_of_devices(
  sizes, batch_size, parts
):
  pictures = [{'x': np.full(size, i, np.uint8)} for i, size in enumerate(sizes)]
  one, many = (
    list(
      scores.in_order(neighbours(batch_size), pipeline.eval_batches(pictures, batch_size, count))
    )
    for count in (1, parts)
  )
  assert len(one) == len(many) == len(pictures)
  for i, (a, b) in enumerate(zip(one, many, strict=True)):
    assert a['x'].shape == sizes[i] and (a['x'] == i).all()
    assert a['next'] == b['next']


def test_a_long_stream_is_not_kept_in_memory():
  """Results are yielded before the next batch is read, so memory is constant."""
  read = []

  def pictures():
    for i in range(100):
      read.append(i)
      yield {'x': np.full((2, 2), i, np.uint8)}

  batches = pipeline.eval_batches(pictures(), 4, 2)
  for i, _ in enumerate(scores.in_order(lambda batch: {'x': batch['x']}, batches)):
    assert len(read) <= i + 8


@pytest.mark.parametrize('count', [5, 64, 130])
def test_distances_count_every_picture(count):
  """Including those of an incomplete last batch."""
  real, made = np.random.RandomState(0).standard_normal((2, count, 6)) + 1
  frechet, kernel = realism.distances(iter(real), iter(made))
  whole = distributions.frechet_distance(distributions.moments(real), distributions.moments(made))
  np.testing.assert_allclose(frechet, whole, rtol=1e-9)
  assert kernel.pairs == count
  np.testing.assert_allclose(kernel.value, distributions.squared_mmd(real, made)[0], rtol=1e-9)
  with pytest.raises(ValueError, match='shorter|longer'):
    realism.distances(iter(real), iter(made[:-1]))


def test_pairs_of_outputs():
  z = np.random.RandomState(0).standard_normal((3, 20, 2))
  distance = np.linalg.norm(z[:, :, None] - z[:, None], axis=-1)
  for row, found, following in zip(
    distance, diversity.all_pairs(distance[:, :16, :16]), diversity.consecutive_pairs(distance),
    strict=True,
  ):  # fmt: skip
    pairs = [row[i, j] for i in range(16) for j in range(i)]
    assert len(pairs) == 120
    np.testing.assert_allclose(found, np.mean(pairs))
    np.testing.assert_allclose(following, np.mean([row[i, i + 1] for i in range(19)]))


def test_lpips_between_all_is_lpips_of_each_pair():
  random = np.random.RandomState(0)
  taps = {'a': random.random_sample((4, 5, 7, 3)), 'b': random.random_sample((4, 2, 3, 6))}
  taps = {name: np.float32(tap) for name, tap in taps.items()}
  taps['a'][3], taps['b'][3] = taps['a'][2], taps['b'][2]
  heads = {'a': random.random_sample(3), 'b': random.random_sample(6)}
  item = lpips.Lpips('lpips', '', None, {'heads': heads})
  found = jax.jit(item.between_all)(item.params, taps)
  assert found.shape == (4, 4) and found[2, 3] < 1e-6  # Equal outputs: the styles are ignored.
  for i in range(4):
    for j in range(4):
      x, y = ({name: tap[[k]] for name, tap in taps.items()} for k in (i, j))
      np.testing.assert_allclose(found[i, j], losses.lpips(x, y, heads)[0], rtol=1e-4, atol=1e-6)


def test_only_inceptions_distances_are_fid_and_kid(empty_store, monkeypatch):
  assert realism.judge().frechet == 'frechet-{net}/224-clean'
  assert realism.judge().blanks == {'net': 'squeezenet1_1'}
  loaded = weights.Features(inception.Inception(), {}, 'inception@0', '0' * 64)
  monkeypatch.setattr(weights, 'load_inception', lambda: loaded)
  judge = realism.judge()
  assert (judge.frechet, judge.kernel) == (
    'fid-inception-tf/299-clean',
    'kid-inception-tf/299-clean',
  )
  # It accepts images in 0..255 only.
  seen = []
  monkeypatch.setattr(inception.Inception, 'apply', lambda self, params, x: seen.append(x))
  judge.describe({}, np.full((1, 299, 299, 3), 255, np.float32))
  assert seen[0].max() == 255


def test_other_nets_see_the_range_of_training(empty_store):
  judge = realism.judge()
  pictures = np.random.RandomState(0).random_sample((2, 224, 224, 3)).astype(np.float32) * 255
  features = judge.features
  taps = features.module.apply({'params': features.params}, pictures / 127.5 - 1)
  expected = np.asarray(taps['fire9']).mean(axis=(1, 2))
  found = judge.describe(features.params, pictures)
  assert found.shape == (2, 512)
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_lpips_is_named_for_its_trunk(empty_store):
  (bundled,) = lpips.available()
  assert bundled.name == 'lpips-squeeze-0.1~caffe-squeezenet'
  empty_store('torchvision')
  exact, *others = lpips.available()
  assert [it.name for it in others] == [bundled.name]
  empty_store('caffe-alexnet')
  other = lpips.available()[0]
  assert (exact.name, other.name) == ('lpips-alex-0.1', 'lpips-alex-0.1~caffe-alexnet')
  assert exact.weights != other.weights
