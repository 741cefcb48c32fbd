"""Codes of regions: replacing, mixing, completing, sampling, reading and writing."""

import jax
import numpy as np
import pytest

from step_jax.errors import DataError, RunError
from step_jax.methods.superstylenet import codes as codes_lib
from step_jax.methods.superstylenet import drawing
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.generator import Generator

A = RegionCodes(
  np.array([[0.1, 0.2], [0.3, 0.4], [0, 0], [0, 0]], np.float32), np.array([1, 1, 0, 0], bool)
)
B = RegionCodes(
  np.array([[0.5, 0.6], [0, 0], [0.7, 0.8], [0, 0]], np.float32), np.array([1, 0, 1, 0], bool)
)
BANK = RegionCodes(np.stack([A.codes, B.codes]), np.stack([A.valid, B.valid]))


def same(found, codes, valid):
  np.testing.assert_allclose(found.codes, codes, atol=1e-6)
  np.testing.assert_array_equal(found.valid, valid)
  assert found.codes.dtype == np.float32 and found.valid.dtype == bool


def test_one_region_of_another_image():
  same(A.with_region(0, B), [B.codes[0], *A.codes[1:]], A.valid)
  same(A.with_region(2, B), [*A.codes[:2], B.codes[2], A.codes[3]], [1, 1, 1, 0])
  np.testing.assert_array_equal(A.valid, [1, 1, 0, 0])
  with pytest.raises(ValueError, match='no code for label 1; choose an image that has'):
    A.with_region(1, B)
  for label in (-1, 4):
    with pytest.raises(DataError, match=f'there is no label {label}: labels are 0 to 3'):
      A.with_region(label, B)


def test_interpolation_of_all_or_some_regions():
  same(A.interpolate(B, 0.25), [[0.2, 0.3], A.codes[1], B.codes[2], [0, 0]], [1, 1, 1, 0])
  same(A.interpolate(B, 0.25, [0]), [[0.2, 0.3], *A.codes[1:]], A.valid)
  same(A.interpolate(B, 0.25, []), A.codes, A.valid)
  same(A.interpolate(A, 0.5), A.codes, A.valid)
  same(A.interpolate(B, 1.0, [0]), [B.codes[0], *A.codes[1:]], A.valid)
  with pytest.raises(DataError, match='there is no label 9: labels are 0 to 3'):
    A.interpolate(B, 0.5, [9])


def test_labels_without_a_code_get_the_mean_and_are_logged():
  mean = BANK.mean()
  same(mean, [[0.3, 0.4], A.codes[1], B.codes[2], [0, 0]], [1, 1, 1, 0])
  completed = A.complete(mean)
  same(completed.codes, [*A.codes[:2], B.codes[2], [0, 0]], [1, 1, 1, 0])
  np.testing.assert_array_equal(completed.borrowed, [0, 0, 1, 0])
  labels = np.array([[0, 2], [3, 255]])
  assert completed.missing(labels) == [3]
  assert completed.notes(labels) == [
    'labels 2 have no code in the style image: used the mean code of the label',
    'labels 3 have no code at all: drawn with the code of black',
  ]
  assert completed.notes(np.array([[0, 1]])) == []


def test_samples_are_codes_of_images_that_have_the_label():
  found = BANK.sample(50, seed=0)
  assert found.codes.shape == (50, 4, 2)
  np.testing.assert_array_equal(found.valid, np.tile([1, 1, 1, 0], (50, 1)))
  np.testing.assert_array_equal(found.codes[:, 1], np.tile(A.codes[1], (50, 1)))
  of_a = (found.codes[:, 0] == A.codes[0]).all(axis=1)
  assert 10 < of_a.sum() < 40 and (found.codes[~of_a, 0] == B.codes[0]).all()
  np.testing.assert_array_equal(found.codes, BANK.sample(50, seed=0).codes)
  assert (found.codes != BANK.sample(50, seed=1).codes).any()


def test_files_have_codes_and_their_validity(tmp_path):
  # The code of black is all zeros, yet valid.
  codes = RegionCodes(A.codes, np.array([1, 1, 1, 0], bool))
  codes_lib.write(tmp_path / 'a.npy', codes)
  same(codes_lib.read(tmp_path / 'a.npy', 4, 2), codes.codes, codes.valid)
  assert np.load(tmp_path / 'a.npy').shape == (4, 2)


def test_files_of_the_original(tmp_path):
  np.save(tmp_path / '7.npy', A.codes.astype(np.float64).reshape(4, 1, 1, 1, 2))
  same(codes_lib.read(tmp_path / '7.npy', 4, 2), A.codes, A.valid)


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.zeros((5, 2), np.float32), r'holds float32 \[5, 2\], expected the codes of 4 labels'),
    (np.zeros((4, 2), int), r'holds int64 \[4, 2\]'),
    (np.array([[np.nan, 0.0]] * 4), 'a code is not finite: extract the codes again'),
    (np.array([[np.inf, 0.0]] * 4).reshape(4, 1, 1, 1, 2), 'not finite'),
    (np.array([{}]), 'is damaged'),
  ],
)
def test_files_that_cannot_be_used(array, message, tmp_path):
  np.save(tmp_path / 'x.npy', array)
  with pytest.raises(RunError, match=message):
    codes_lib.read(tmp_path / 'x.npy', 4, 2)


def test_drawing_computes_a_layout_once():
  generator = Generator(4, style_size=2, width=1, num_upsamplings=1, spade_width=2)
  labels = np.arange(16 * 16).reshape(16, 16) // 64
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(generator.init, jax.random.key(0), labels[None], A.codes[None])
  variables = jax.tree.map(lambda x: random.normal(0, 0.3, x.shape).astype('f'), shapes)
  variables['batch_stats'] = jax.tree.map(np.ones_like, variables['batch_stats'])
  drawer = drawing.Drawer(generator, variables)
  first = drawer.draw(labels, A, seed=0)
  assert first.shape == (16, 16, 3) and first.dtype == np.uint8
  layout = drawer.layout(labels)
  both = drawer.draw(labels, BANK, seed=0)
  assert drawer.layout(labels.copy()) is layout
  assert both.shape == (2, 16, 16, 3)
  assert np.abs(both[0].astype(int) - first).max() <= 1
  assert (both[0] != both[1]).any() and (first != drawer.draw(labels, A)).any()
  other = drawer.draw(labels[::-1], A, seed=0)
  assert drawer.layout(labels) is not layout
  direct = drawing.Drawer(generator, variables).draw(labels[::-1], A, seed=0)
  np.testing.assert_array_equal(other, direct)
