"""Common image files are read as RGB; others give a one-line error with the file name."""

import numpy as np
from PIL import Image
import pytest

from step_jax.data import pictures
from step_jax.errors import DataError


@pytest.fixture
def rgb():
  return np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize('extension', ['png', 'webp'])
def test_lossless_files_come_back_exactly(tmp_path, rgb, extension):
  path = tmp_path / f'x.{extension}'
  Image.fromarray(rgb).save(path, lossless=True)
  np.testing.assert_array_equal(pictures.read_picture(path), rgb)


def test_jpg(tmp_path):
  smooth = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
  Image.fromarray(smooth).save(tmp_path / 'x.jpg', quality=95)
  read = pictures.read_picture(tmp_path / 'x.jpg')
  assert np.abs(read.astype(int) - smooth).max() <= 3


def test_grey_becomes_three_equal_channels(tmp_path, rgb):
  grey = rgb[:, :, 0]
  Image.fromarray(grey).save(tmp_path / 'x.png')
  np.testing.assert_array_equal(pictures.read_picture(tmp_path / 'x.png'), np.dstack([grey] * 3))


def test_black_and_white(tmp_path):
  Image.fromarray(np.array([[0, 255]], np.uint8)).convert('1').save(tmp_path / 'x.png')
  assert pictures.read_picture(tmp_path / 'x.png')[0, :, 0].tolist() == [0, 255]


def test_sixteen_bits_keep_their_high_byte(tmp_path):
  values = np.array([[0, 257, 40 * 257, 65535]], np.uint16)
  Image.fromarray(values).save(tmp_path / 'x.png')
  assert pictures.read_picture(tmp_path / 'x.png')[0, :, 1].tolist() == [0, 1, 40, 255]


def test_palette(tmp_path, rgb):
  image = Image.fromarray(rgb).quantize(16)
  image.save(tmp_path / 'x.png')
  expected = np.asarray(image.convert('RGB'))
  np.testing.assert_array_equal(pictures.read_picture(tmp_path / 'x.png'), expected)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_pixels_lie_on_white(tmp_path, mode):
  image = Image.new('RGBA', (4, 2), (10, 20, 30, 0))
  image.paste((0, 0, 0, 255), (0, 0, 2, 2))
  image = image.convert(mode)
  image.save(tmp_path / 'x.png')
  read = pictures.read_picture(tmp_path / 'x.png')
  assert read.shape == (2, 4, 3)
  assert read[:, 2:].min() == 255 and read[:, :2].max() == 0


def test_cmyk(tmp_path):
  Image.new('CMYK', (8, 8), (255, 0, 0, 0)).save(tmp_path / 'x.jpg')
  red, green, blue = pictures.read_picture(tmp_path / 'x.jpg')[4, 4].tolist()
  assert red < 30 and green > 200 and blue > 200


def test_rotation_noted_by_the_camera_is_applied(tmp_path, rgb):
  exif = Image.Exif()
  exif[0x0112] = 6  # Rotated by 90 degrees: the file's rows are the image's columns.
  Image.fromarray(rgb).save(tmp_path / 'x.png', exif=exif)
  read = pictures.read_picture(tmp_path / 'x.png')
  np.testing.assert_array_equal(read, np.rot90(rgb, -1))


@pytest.mark.parametrize('name', ['x.png', 'x.jpg', 'x.webp'])
def test_truncated_files_are_named(tmp_path, rgb, name):
  path = tmp_path / name
  Image.fromarray(np.tile(rgb, (8, 8, 1))).save(path)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(DataError, match=rf'{name}: cannot be read.*replace or remove') as caught:
    pictures.read_picture(path)
  assert '\n' not in str(caught.value)


def test_files_that_are_not_images_are_named(tmp_path):
  (tmp_path / 'x.png').write_text('hello')
  with pytest.raises(DataError, match='x.png: cannot be read'):
    pictures.read_picture(tmp_path / 'x.png')
  with pytest.raises(DataError, match='gone.png: no such image'):
    pictures.read_picture(tmp_path / 'gone.png')


def test_resize_does_not_confuse_height_and_width(rgb):
  assert pictures.resize(rgb, (16, 6)).shape == (16, 6, 3)
  assert pictures.resize(rgb, (8, 12)) is rgb


def test_writing_leaves_no_temporary_file(tmp_path, rgb):
  pictures.write_png(tmp_path / 'x.png', rgb)
  assert [path.name for path in tmp_path.iterdir()] == ['x.png']
  np.testing.assert_array_equal(pictures.read_picture(tmp_path / 'x.png'), rgb)
