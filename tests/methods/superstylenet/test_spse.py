"""Superpixel style encoding against results of the original, and its invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ssn_vectors

from step_jax.methods.superstylenet import sample_maps, spse
from step_jax.methods.superstylenet.spse import (
  clusters,
  device,
  host,
  layout,
  splines,
  window,
)
from step_jax.methods.superstylenet.spse.outcome import Outcome

FILES = ssn_vectors.names('spse_*')
OUTCOMES = {
  'ok': Outcome.OK,
  'absent': Outcome.ABSENT,
  'slic:ZeroDivisionError': Outcome.NO_STEP,
  'encode:error': Outcome.TOO_FEW_SUPERPIXELS,
}


@functools.cache
def table():
  return jnp.asarray(spse.spline_table())


@functools.cache
def jitted_extract():
  return jax.jit(spse.extract, static_argnums=2)


def extract(images, labels, num_labels):
  found = jitted_extract()(jnp.asarray(images), jnp.asarray(labels), num_labels, table())
  return jax.tree.map(np.asarray, found)


def batch_of(vectors):
  """Image and labels of a file as a batch, with one image per overlapping mask."""
  image, masks = vectors['image'], vectors['masks'].astype(bool)
  if (masks.sum(0) <= 1).all():
    labels = np.where(masks.any(0), masks.argmax(0), 255)
    return image[None], labels[None].astype(np.uint8), len(masks)
  return np.repeat(image[None], len(masks), 0), np.where(masks, 0, 7), 1


@functools.cache
def extracted(name):
  vectors = ssn_vectors.load(name)
  images, labels, num_labels = batch_of(vectors)
  found = extract(images, labels, num_labels)
  by_mask = lambda x: x.reshape(-1, *x.shape[2:])
  maps = [found.label_dist, found.label_full]
  if num_labels > 1:
    maps = [np.where(vectors['masks'], x, -1) for x in maps]
  return vectors, found._replace(
    **{key: by_mask(getattr(found, key)) for key in ('codes', 'outcome', 'seeds', 'steps')},
    label_dist=maps[0],
    label_full=maps[1],
  )


@pytest.mark.parametrize('name', FILES)
def test_host_finds_the_same_superpixels_to_the_pixel(name):
  vectors = ssn_vectors.load(name)
  for i, mask in enumerate(vectors['masks'].astype(bool)):
    region = host.encode_region(vectors['image'], mask)
    assert region.outcome == OUTCOMES[str(vectors['status'][i])]
    for key in ('seeds', 'step', 'label_dist', 'label_full'):
      np.testing.assert_array_equal(getattr(region, key), vectors[key][i], err_msg=f'{key} {i}')
    for key in ('cent_dist', 'cent_full'):
      np.testing.assert_allclose(getattr(region, key), vectors[key][i], atol=2e-6)
    assert len(region.means) == vectors['nseg'][i]
    np.testing.assert_allclose(region.means, vectors['means'][i, : len(region.means)], atol=1e-6)
    np.testing.assert_allclose(region.code, vectors['codes'][i], atol=1e-6)


@pytest.mark.parametrize('name', FILES)
def test_device_has_the_seeds_and_steps_and_outcomes(name):
  vectors, found = extracted(name)
  np.testing.assert_array_equal(found.outcome, [OUTCOMES[str(s)] for s in vectors['status']])
  present = vectors['npix'] > 0
  np.testing.assert_array_equal(found.seeds[present], vectors['seeds'][present])
  np.testing.assert_array_equal(found.steps[present], vectors['step'][present])


@pytest.mark.parametrize('name', FILES)
def test_device_labels_and_codes(name):
  vectors, found = extracted(name)
  masks = vectors['masks'].astype(bool)
  # In the original, a region without a step has no superpixels; ours are never read.
  masks &= (found.outcome != Outcome.NO_STEP)[:, None, None]
  for key in ('label_dist', 'label_full'):
    same = (getattr(found, key) == vectors[key])[masks]
    assert same.mean() >= 0.999, (key, same.mean())
  np.testing.assert_allclose(found.codes, vectors['codes'], atol=2e-2)


@pytest.mark.parametrize('name', FILES)
def test_codes_from_given_labels(name):
  vectors = ssn_vectors.load(name)
  images, labels, num_labels = batch_of(vectors)
  given = vectors['label_full'].max(0)[None] if num_labels > 1 else vectors['label_full']

  @jax.jit
  def encode(images, labels, given, steps, table):
    pixels = layout.arrange(labels.astype(jnp.int32), num_labels)
    rgb = images.reshape(-1, 3)[pixels.pixel]
    label = jnp.where(pixels.filled, given.reshape(-1)[pixels.pixel].astype(jnp.int32), -1)
    return device.encode(rgb, label, pixels, steps, table)

  codes, outcome = encode(images, labels, given, vectors['step'], table())
  np.testing.assert_allclose(codes, vectors['codes'], atol=1e-5)
  np.testing.assert_array_equal(outcome, [OUTCOMES[str(s)] for s in vectors['status']])


@pytest.mark.parametrize('knots', [4, 5, 6, 17, 64, 127])
def test_splines_of_a_channel(knots):
  expected = ssn_vectors.load('spline_ops')[f'B_{knots}_128']
  np.testing.assert_allclose(splines.spline_matrix(knots, 128), expected, atol=1e-12)
  np.testing.assert_allclose(spse.spline_table()[knots, :, :knots], expected, atol=1e-6)


@pytest.mark.parametrize('knots', [6, 384])
def test_splines_of_all_channels(knots):
  expected = ssn_vectors.load('spline_ops')[f'B_{knots}_512']
  np.testing.assert_allclose(splines.spline_matrix(knots, 512), expected, atol=1e-12)


@pytest.mark.parametrize(
  ('pixels', 'outcome'),
  [
    (0, Outcome.ABSENT),
    (1, Outcome.NO_STEP),
    (2, Outcome.OK),
    (3, Outcome.TOO_FEW_SUPERPIXELS),
    (4, Outcome.OK),
    (127, Outcome.OK),
    (128, Outcome.OK),
    (500, Outcome.OK),
  ],
)
def test_every_number_of_pixels_has_a_named_outcome(pixels, outcome):
  """Outcomes by number of pixels; regions without a code have a reason and zeros."""
  random = np.random.default_rng(pixels)
  mask = np.zeros(32 * 32, bool)
  mask[random.permutation(32 * 32)[:pixels]] = True
  mask = mask.reshape(32, 32)
  image = random.random((32, 32, 3), np.float32)
  region = host.encode_region(image, mask)
  found = extract(image[None], np.where(mask, 0, 1)[None], 1)
  assert region.outcome == found.outcome[0, 0] == outcome
  assert found.valid[0, 0] == (outcome == Outcome.OK) == (not outcome.reason)
  assert found.codes[0, 0].any() == found.valid[0, 0]
  np.testing.assert_allclose(found.codes[0, 0], region.code, atol=1e-5)
  if 4 <= pixels <= 127:
    assert len(np.unique(found.label_full[0][mask])) == pixels


def test_regions_that_fill_their_box_start_at_its_last_corner():
  labels = np.ones((1, 32, 32), int)
  labels[0, 5:17, 3:11] = 0
  found = extract(np.zeros((1, 32, 32, 3), np.float32), labels, 1)
  np.testing.assert_array_equal(found.seeds[0, 0, 0], [16, 10])
  np.testing.assert_array_equal(found.seeds[0, 0], host.place_seeds(labels[0] == 0))


@pytest.mark.parametrize('shape', [(40, 24), (5, 300)])
def test_device_and_host_agree_on_any_shape(shape):
  random = np.random.default_rng(1)
  coarse = random.integers(0, 4, (-(-shape[0] // 8), -(-shape[1] // 8)))
  labels = np.kron(coarse, np.ones((8, 8), int))[: shape[0], : shape[1]]
  image = random.integers(0, 255, (*shape, 3)).astype(np.uint8)
  found = extract(image[None], labels[None], 3)
  assert (found.label_full[0][labels == 3] == -1).all()
  for label in range(3):
    mask = labels == label
    region = host.encode_region(image / np.float32(255), mask)
    np.testing.assert_array_equal(found.seeds[0, label], region.seeds)
    assert found.steps[0, label] == region.step
    same = found.label_full[0][mask] == region.label_full[mask]
    assert same.mean() >= 0.999, (label, same.mean())


def test_windows_depend_only_on_the_image():
  sizes = [(512, 512), (256, 256), (128, 128), (64, 64), (2000, 3), (3, 2000)]
  expected = [(45, 45), (23, 23), (11, 11), (6, 6), (16, 3), (3, 16)]
  assert [window.window_step(*size) for size in sizes] == expected


def test_codes_do_not_depend_on_the_batch_or_the_other_labels():
  # Shapes and types of `spse_64_4`, so that its compiled program is reused.
  images, labels = (
    np.stack(each) for each in zip(sample_maps.face(64, 3), sample_maps.street(64, 3), strict=True)
  )
  images, labels = images / np.float32(255), (labels % 5).astype(np.uint8)
  both = extract(images, labels, 5)
  for i in range(2):
    alone = extract(images[i][None], labels[i][None], 5)
    np.testing.assert_array_equal(both.label_full[i], alone.label_full[0])
    np.testing.assert_allclose(both.codes[i], alone.codes[0], atol=1e-6)
  other = np.where(labels[1] == 4, labels[1], 255).astype(np.uint8)
  alone = extract(images[1][None], other[None], 5)
  np.testing.assert_allclose(both.codes[1, 4], alone.codes[0, 4], atol=1e-6)
  assert (alone.outcome[0] == Outcome.ABSENT).sum() == 4


def test_no_possible_superpixel_is_excluded(monkeypatch):
  """Candidates against all superpixels, and slabs against all blocks at once."""
  # Shapes and types of `spse_128_19`, so that its compiled program is reused.
  image, labels = sample_maps.face(128, 1)
  args = (image / np.float32(255))[None], labels[None].astype(np.uint8), 19
  chosen = extract(*args)
  candidates = clusters._candidates

  def all_of_them(centres, boxes, reach, scale):
    everywhere = [(jnp.full_like(low, -1e9), jnp.full_like(high, 1e9)) for low, high in boxes]
    count, parts = candidates(centres, everywhere, reach, scale)
    assert count.shape == boxes[0][0].shape
    return count, parts

  monkeypatch.setattr(clusters, '_candidates', all_of_them)
  monkeypatch.setattr(clusters, '_SLAB', 1000)
  # Compiled again, since the constants above are read while tracing.
  for found, expected in zip(
    jax.jit(spse.extract, static_argnums=2)(*args, table()), chosen, strict=True
  ):
    np.testing.assert_array_equal(found, expected)


def test_flat_colours_give_the_colour_away_from_the_joints():
  """The second spline oscillates at channel boundaries, so only inner values are exact."""
  image = np.full((32, 32, 3), (0.2, 0.5, 0.9), np.float32)
  codes = extract(image[None], np.zeros((1, 32, 32), int), 1).codes[0, 0]
  for i, value in enumerate((0.2, 0.5, 0.9)):
    np.testing.assert_allclose(codes[30 + 170 * i : 140 + 170 * i], value, atol=1e-3)


def test_sample_maps_have_all_labels():
  for maps in (sample_maps.face, sample_maps.street):
    image, labels = maps(128, 0)
    assert image.shape == (128, 128, 3) and len(np.unique(labels)) == sample_maps.NUM_LABELS
    np.testing.assert_array_equal(maps(128, 0)[1], labels)


def test_lowers_for_accelerators():
  shape = jax.ShapeDtypeStruct
  args = (
    shape((2, 64, 64, 3), jnp.uint8),
    shape((2, 64, 64), jnp.uint8),
    shape(spse.spline_table().shape, jnp.float32),
  )
  function = jax.jit(lambda images, labels, table: spse.extract(images, labels, 19, table))
  assert jax.export.export(function, platforms=['tpu', 'cuda'])(*args).nr_devices == 1


def test_an_image_needs_less_than_a_gigabyte():
  shape = jax.ShapeDtypeStruct
  args = shape((1, 512, 512, 3), jnp.uint8), shape((1, 512, 512), jnp.uint8), table()
  compiled = jitted_extract().lower(*args[:2], 19, args[2]).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 2e8
