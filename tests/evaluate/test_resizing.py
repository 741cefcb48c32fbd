"""Resizers of the protocols: equal to Pillow, and free of common mistakes."""

import jax
import numpy as np
from PIL import Image
import pytest

from step_jax.evaluate.resizing import resize_for_inception, resize_for_lpips


def picture(height=70, width=90, seed=0):
  return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('shape', [(70, 90), (299, 150), (640, 512)])
def test_inception_input_is_pillows_bicubic_of_each_channel(shape):
  image = picture(*shape)
  found = resize_for_inception(image)
  assert found.shape == (299, 299, 3) and found.dtype == np.float32
  for c in range(3):
    channel = Image.fromarray(image[..., c]).convert('F')
    expected = np.asarray(channel.resize((299, 299), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found[..., c], expected)


@pytest.mark.parametrize('shape', [(70, 90), (640, 512)])
def test_inception_input_is_an_antialiased_bicubic_of_another_making(shape):
  image = picture(*shape).astype(np.float32)
  expected = jax.image.resize(image, (299, 299, 3), 'cubic', antialias=True)
  np.testing.assert_allclose(resize_for_inception(image), expected, atol=2e-2)


def test_inception_input_is_neither_rounded_nor_clipped():
  found = resize_for_inception(picture())
  assert np.mean(found == np.rint(found)) < 0.05
  assert found.min() < 0 and found.max() > 255


def test_a_picture_of_the_right_size_keeps_its_values():
  image = picture(299, 299)
  np.testing.assert_array_equal(resize_for_inception(image), image)
  np.testing.assert_array_equal(resize_for_lpips(image[:256, :256]), image[:256, :256])


@pytest.mark.parametrize('resize', [resize_for_inception, resize_for_lpips])
def test_fine_patterns_become_grey_and_not_moire(resize):
  """Without antialiasing, a checkerboard does not become its mean."""
  board = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)
  found = resize(np.repeat(board[..., None], 3, axis=-1)).astype(float)
  assert abs(found[2:-2, 2:-2] - 127.5).max() < 4


@pytest.mark.parametrize('resize', [resize_for_inception, resize_for_lpips])
def test_height_and_width_are_not_swapped(resize):
  image = np.zeros((40, 80, 3), np.uint8)
  image[:10] = 255  # The top quarter.
  found = resize(image)
  np.testing.assert_allclose(found.mean() / 255, 0.25, atol=0.01)
  assert (found[: found.shape[0] // 5] > 250).all() and (found[found.shape[0] // 3 :] < 5).all()


@pytest.mark.parametrize('shape', [(70, 90), (512, 300)])
def test_lpips_input_is_pillows_bicubic_in_uint8(shape):
  image = picture(*shape)
  found = resize_for_lpips(image)
  expected = np.asarray(Image.fromarray(image).resize((256, 256), resample=3))
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, expected)
  # If nothing overshoots, results are exact up to one rounding per direction.
  pale = image // 4 + 96
  exact = jax.image.resize(pale.astype(np.float32), (256, 256, 3), 'cubic', antialias=True)
  assert np.abs(resize_for_lpips(pale) - exact).max() < 1.2
  assert resize_for_lpips(image, 64).shape == (64, 64, 3)


def test_files_that_are_not_images_are_refused():
  for resize in (resize_for_inception, resize_for_lpips):
    for shape in ((8, 8), (8, 8, 4), (2, 8, 8, 3)):
      with pytest.raises(ValueError, match=r'\[H, W, 3\]'):
        resize(np.zeros(shape, np.uint8))
  with pytest.raises(ValueError, match='uint8, not float32'):
    resize_for_lpips(picture().astype(np.float32))
