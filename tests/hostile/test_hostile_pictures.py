"""Hostile images and image folders."""

import os
import struct
import zlib

from measure import MIB, peak, refused
import numpy as np
from PIL import Image
import pytest

from step_jax.data import builder, folders, pairs, pictures
from step_jax.errors import DataError
from step_jax.infer import paths


def chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, data: bytes = b'') -> bytes:
  """A grey PNG with an arbitrary size in its header."""
  header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  parts = [chunk(b'IHDR', header), *more, chunk(b'IDAT', zlib.compress(data)), chunk(b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def webp(width: int, height: int) -> bytes:
  """An extended WebP with only a header."""
  sides = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
  content = b'WEBPVP8X' + struct.pack('<I', 10) + bytes(4) + sides
  return b'RIFF' + struct.pack('<I', len(content)) + content


def jpeg(width: int, height: int) -> bytes:
  frame = struct.pack('>HBHHB', 11, 8, height, width, 1) + b'\x01\x11\x00'
  return b'\xff\xd8\xff\xc0' + frame + b'\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00' + bytes(50)


BOMBS = {
  'png of 60000x60000': png(60_000, 60_000),
  'png of 10000x10000': png(10_000, 10_000, data=bytes(10_001 * 10_000)),
  'png of the largest size': png(2**31 - 1, 2**31 - 1),
  'png of no size': png(0, 0),
  'png whose profile inflates': png(
    8, 8, chunk(b'iCCP', b'x\0\0' + zlib.compress(bytes(128 * MIB), 1)), data=bytes(72)
  ),
  'png whose comment inflates': png(
    8, 8, chunk(b'zTXt', b'x\0\0' + zlib.compress(bytes(128 * MIB), 1)), data=bytes(8)
  ),
  'jpeg of 65535x65535': jpeg(65_535, 65_535),
  'webp of 16384x16384': webp(16_384, 16_384),
  'webp of the largest size': webp(2**24, 2**24),
}


@pytest.mark.parametrize('bomb', BOMBS)
def test_inflating_images_are_not_decoded(bomb, apart):
  path = apart / 'x.png'
  path.write_bytes(BOMBS[bomb])

  def read():
    try:
      pictures.read_picture(path)
    except DataError as error:
      assert str(error).isprintable() and 'x.png' in str(error)

  # The profile is ignored, and the image is read.
  assert peak(read) < 80 * MIB


def test_the_largest_image_needs_the_documented_memory(apart):
  """With the mode that needs most memory: an alpha channel, composed on white."""
  side = int(pictures._MOST_PIXELS**0.5) // 3  # A ninth of the limit: memory is per pixel.
  path = apart / 'x.png'
  Image.new('RGBA', (side, side), (1, 2, 3, 4)).save(path, compress_level=1)
  assert peak(lambda: pictures.read_picture(path)) < 24 * side * side


def test_only_supported_formats_are_tried(apart, monkeypatch):
  """Pillow would run Ghostscript on EPS files, which are programs, whatever their name."""
  (apart / 'bin').mkdir()
  for name in ('gs', 'gswin64c', 'gswin32c'):
    script = apart / 'bin' / name
    script.write_text(f'#!/bin/sh\ntouch {apart}/ran\n')
    script.chmod(0o755)
  monkeypatch.setenv('PATH', f'{apart}/bin:{os.environ["PATH"]}')
  monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None)
  eps = apart / 'x.png'
  eps.write_text(
    '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n'
  )
  refused(lambda: pictures.read_picture(eps), DataError)
  assert not (apart / 'ran').exists()
  for kind in ('bmp', 'gif', 'tiff', 'ppm', 'ico'):
    path = apart / f'{kind}.png'
    Image.new('RGB', (8, 8)).save(path, kind)
    refused(lambda path=path: pictures.read_picture(path), DataError)
  with pytest.raises(OSError):
    pairs._decode(eps.read_bytes())


def test_a_wrong_ending_does_no_harm(apart):
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
  Image.fromarray(image).save(apart / 'x.jpg', 'png')
  np.testing.assert_array_equal(pictures.read_picture(apart / 'x.jpg'), image)


def test_a_record_that_is_not_an_rgb_image_is_refused():
  """Untrusted prepared data sets may have records that `prepare` never writes."""
  for record in (png(8, 8, data=bytes(72)), png(60_000, 60_000), b''):
    with pytest.raises(pairs._UNREADABLE):
      pairs._decode(record)


def test_many_large_images_do_not_accumulate_in_memory(apart):
  """64 images are prepared at a time."""
  side = 1600
  for i in range(24):
    Image.new('RGB', (side, side), (i, 0, 0)).save(apart / f'{i:02d}.png', compress_level=1)
  found = folders.scan(apart, 'unpaired')
  made = builder.Pairs(picture_set=found, data_dir=str(apart / 'out'))
  threads = os.cpu_count() or 1
  took = peak(lambda: list(made._generate_examples('train')))
  assert took < (2 + threads) * 24 * side * side / 2 + 24 * MIB


NAMES = ['new\nline', 'escape\x1b[2J', 'return\rline', 'bell\x07', 'line\u2028', b'\xff\xfe']


@pytest.mark.parametrize('name', NAMES)
def test_names_that_forge_lines_are_reported_in_one_line(name, apart):
  Image.new('RGB', (16, 8)).save(apart / 'good.png')
  evil = os.fsdecode(name) + '.png'
  (apart / evil).write_bytes((apart / 'good.png').read_bytes())
  for action in (lambda: folders.scan(apart), lambda: paths.expand([apart])):
    assert 'rename or remove it' in refused(action, DataError)
  (apart / evil).write_bytes(b'no picture')
  refused(lambda: pictures.read_picture(apart / evil), DataError)


HARMLESS = ['-rf.png', '--help.png', '$(touch ran).png', '<script>.png', 'a b.png', '…é漢.png']


def test_unusual_names_are_valid(apart):
  for name in HARMLESS:
    Image.new('RGB', (16, 8)).save(apart / name, 'png')
  found = folders.scan(apart)
  names = [example.name for split in found.splits.values() for example in split]
  assert sorted(names) == sorted(HARMLESS)
  prepared = builder.prepare(found, apart / 'out')
  names = [name for split in prepared.splits for name in prepared.split(split).names()]
  assert sorted(names) == sorted(HARMLESS)


def test_links_out_of_a_folder_reveal_nothing(apart):
  """Links to images are images; other links reveal nothing, and folders are not followed."""
  secret = apart / 'secret.txt'
  secret.write_text('the secret')
  folder = apart / 'pictures'
  folder.mkdir()
  for i in range(3):
    Image.new('RGB', (16, 8)).save(folder / f'{i}.png')
  (folder / 'up').symlink_to(apart, target_is_directory=True)
  (folder / 'around.png').symlink_to(folder / 'around.png')
  (folder / 'endless.png').symlink_to('/dev/zero')
  os.mkfifo(folder / 'pipe.png')
  found = folders.scan(folder)
  names = [example.name for split in found.splits.values() for example in split]
  assert sorted(names) == ['0.png', '1.png', '2.png']
  (folder / 'link.png').symlink_to(secret)
  message = refused(lambda: builder.prepare(folders.scan(folder), apart / 'out'), DataError)
  assert 'link.png' in message and 'secret' not in message
  assert not (apart / 'out').exists()


def test_a_result_is_not_written_through_a_link(apart):
  (apart / 'kept.txt').write_text('kept')
  (apart / '.x.png.part').symlink_to(apart / 'kept.txt')
  (apart / 'x.png').symlink_to(apart / 'kept.txt')
  pictures.write_png(apart / 'x.png', np.zeros((8, 8, 3), np.uint8))
  assert (apart / 'kept.txt').read_text() == 'kept'
  assert not (apart / 'x.png').is_symlink()


@pytest.fixture
def prepared(apart):
  for i in range(3):
    Image.new('RGB', (16, 8)).save(apart / f'{i}.png')
  return builder.prepare(folders.scan(apart), apart / 'out').folder


@pytest.mark.parametrize('style', ['pythonClassName', 'python_class_name', 'type'])
def test_a_prepared_set_imports_no_modules(style, prepared, apart, monkeypatch):
  """TFDS would import the module of the class named in features.json."""
  (apart / 'evilmodule.py').write_text(
    f'import pathlib\npathlib.Path({str(apart)!r}, "ran").touch()\n'
  )
  monkeypatch.syspath_prepend(str(apart))
  (prepared / 'features.json').write_text(f'{{"{style}": "evilmodule.Evil", "content": {{}}}}')
  assert 'evilmodule' in refused(lambda: pairs.PairSet(prepared), DataError)
  assert not (apart / 'ran').exists()


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json', 'metadata.json'])
@pytest.mark.parametrize('content', ['', '[]', '{}', '{"a": ', '[' * 100_000, '"\\n"'])
def test_a_damaged_prepared_set_is_reported(name, content, prepared):
  (prepared / name).write_text(content)
  assert 'prepare it again' in refused(lambda: pairs.PairSet(prepared), DataError)
