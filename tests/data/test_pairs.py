"""Prepared data sets: lossless, written atomically, and prepared only once."""

import dataclasses
import fcntl
import json
import os

import numpy as np
from PIL import Image
import pytest

from step_jax import data, files
from step_jax.data import builder, folders, pairs, swatches
from step_jax.errors import DataError


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(5):
    (tmp_path / 'in/train').mkdir(parents=True, exist_ok=True)
    image = rng.integers(0, 256, (10 + i, 24, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / f'in/train/{i}.png')
  return tmp_path / 'in'


def test_written_files_can_be_read(folder, tmp_path):
  scanned = folders.scan(folder)
  found = builder.prepare(scanned, tmp_path / 'out')
  assert found.splits == {'train': 4, 'val': 1} and found.paired
  for split, examples in scanned.splits.items():
    read = found.split(split)
    assert read.names() == [example.name for example in examples]
    for example, stored in zip(examples, read, strict=True):
      for side, image in example.load().items():
        np.testing.assert_array_equal(stored[side], image)
  again = data.open_data(str(tmp_path / 'out'))
  assert again.splits == found.splits and again.fingerprint == found.fingerprint


def test_small_sets_are_decoded_once(folder, tmp_path, monkeypatch):
  split = builder.prepare(folders.scan(folder), tmp_path / 'set').split('train')
  decoded = []
  decode = pairs._decode
  monkeypatch.setattr(pairs, '_decode', lambda png: decoded.append(png) or decode(png))
  size = sum(split[0][side].nbytes for side in 'AB')
  kept = pairs.PairSplit(split._source)
  decoded.clear()
  first, again = kept[1], kept[1]
  assert len(decoded) == 2 and again.keys() == first.keys()
  with pytest.raises(ValueError, match='read-only'):
    again['A'][:] = 0
  # Images beyond the size of the cache are decoded each time.
  monkeypatch.setattr(pairs, '_CACHE_BYTES', size)
  kept = pairs.PairSplit(split._source)
  decoded.clear()
  for index in (0, 1, 0, 1):
    kept[index]
  assert len(decoded) == 2 + 2 + 0 + 2


def test_a_folder_is_prepared_once(folder, monkeypatch):
  first = data.open_data(str(folder))
  monkeypatch.setattr(builder, 'prepare', None)
  assert data.open_data(str(folder)).folder == first.folder


def test_a_changed_folder_is_prepared_again(folder):
  first = data.open_data(str(folder))
  Image.new('RGB', (24, 10)).save(folder / 'train/new.png')
  assert data.open_data(str(folder)).folder != first.folder


def test_the_fraction_applies_to_prepared_folders(folder):
  held = [data.open_data(str(folder), val_fraction=f).split('val').names() for f in (0.1, 0.9)]
  assert set(held[0]) < set(held[1])


def test_contents_are_of_pixels_and_not_of_times_or_sizes(folder, tmp_path):
  first = data.open_data(str(folder))
  contents = {split: first.contents(split) for split in ('train', 'val')}
  assert [len(names) for names in contents.values()] == [4, 1]
  os.utime(folder / 'train/0.png', (1, 1))
  for again in (
    data.open_data(str(folder)),
    data.open_data(str(folder), resize=20),
    builder.prepare(folders.scan(folder), tmp_path / 'out'),
  ):
    assert {split: again.contents(split) for split in contents} == contents
  Image.new('RGB', (24, 10)).save(folder / 'train/0.png')
  changed = data.open_data(str(folder))
  name = 'train/0.png'
  for split, old in contents.items():
    new = changed.contents(split)
    assert new.keys() == old.keys()
    assert [other for other in old if old[other] != new[other]] == [name] * (name in old)


def test_a_set_of_an_older_version_is_read(folder, tmp_path):
  made = builder.prepare(folders.scan(folder), tmp_path / 'out')
  path = made.folder / 'metadata.json'
  metadata = json.loads(path.read_text())
  assert metadata.pop('contents') and metadata.pop('held_out')
  path.write_text(json.dumps(metadata))
  old = data.open_data(str(made.folder))
  assert not old.held_out and made.held_out
  assert old.contents('val') == dict.fromkeys(made.contents('val'), old.fingerprint)


def test_leftovers_of_a_killed_process_are_removed(folder, tmp_path):
  left, used = tmp_path / '.set-12345678.part', tmp_path / '.other-12345678.part'
  for path in (left, used, tmp_path / '.mine'):
    path.mkdir()
    (path / 'file').write_text('')
  descriptor = os.open(used, os.O_RDONLY)
  fcntl.flock(descriptor, fcntl.LOCK_SH)
  builder.prepare(folders.scan(folder), tmp_path / 'out')
  assert {path.name for path in tmp_path.iterdir()} == {'in', 'out', used.name, '.mine'}
  os.close(descriptor)
  with files.temporary_folder(tmp_path, 'x') as part:
    assert part.is_dir() and not used.exists()
    with files.temporary_folder(tmp_path, 'x'):
      assert part.is_dir()
  assert not part.exists()


def test_a_temporary_folder_removed_by_others_is_recreated(tmp_path, monkeypatch):
  mkdtemp, made = files.tempfile.mkdtemp, []

  def removed_at_once(*args, **kwargs):
    made.append(mkdtemp(*args, **kwargs))
    if len(made) == 1:
      os.rmdir(made[0])
    return made[-1]

  monkeypatch.setattr(files.tempfile, 'mkdtemp', removed_at_once)
  with files.temporary_folder(tmp_path, 'x') as part:
    assert part.is_dir() and len(made) == 2


def test_a_folder_with_a_long_name_is_prepared(folder):
  long = folder.rename(folder.parent / ('n' * 240))
  assert data.open_data(str(long)).splits == {'train': 4, 'val': 1}


def test_resize_keeps_the_aspect(folder, tmp_path):
  found = builder.prepare(folders.scan(folder), tmp_path / 'out', resize=20)
  heights = sorted(example['A'].shape[:2] for example in found.split('train'))
  assert all(min(shape) == 20 for shape in heights)
  assert heights[0] == (20, 24) or heights[-1] != (20, 20)


def test_smallest_picture_is_named_when_a_crop_is_too_large(folder, tmp_path):
  found = builder.prepare(folders.scan(folder), tmp_path / 'out')
  found.check_crop('train', (10, 12))
  with pytest.raises(DataError, match=r'\d.png: its height of 1\d px is below the crop of 16'):
    found.check_crop('train', (16, 12))
  with pytest.raises(DataError, match=r'its width of 12 px is below the crop of 13 .*data.resize'):
    found.check_crop('train', (10, 13))


def test_sizes_are_counted(folder, tmp_path):
  found = builder.prepare(folders.scan(folder), tmp_path / 'out')
  for split, count in found.sizes.items():
    assert count == len({example['A'].shape for example in found.split(split)})
  assert found.sizes['train'] > 1


def test_nothing_is_left_of_a_failure(folder, tmp_path):
  broken = folder / 'train/3.png'
  broken.write_bytes(broken.read_bytes()[:60])
  with pytest.raises(DataError, match='3.png: cannot be read'):
    builder.prepare(folders.scan(folder), tmp_path / 'out')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['in']


def test_pictures_of_a_pair_must_match(tmp_path):
  for side, size in (('A', (8, 8)), ('B', (9, 8))):
    for i in range(2):
      (tmp_path / 'in' / side).mkdir(parents=True, exist_ok=True)
      Image.new('RGB', size).save(tmp_path / 'in' / side / f'{i}.png')
  with pytest.raises(DataError, match='A is 8x8 but B is 9x8 px'):
    builder.prepare(folders.scan(tmp_path / 'in'), tmp_path / 'out')


def test_a_folder_in_use_is_not_overwritten(folder, tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out/precious').write_text('')
  with pytest.raises(DataError, match='is not empty'):
    builder.prepare(folders.scan(folder), tmp_path / 'out')
  assert (tmp_path / 'out/precious').exists()


def test_unknown_split(folder, tmp_path):
  found = builder.prepare(folders.scan(folder), tmp_path / 'out')
  with pytest.raises(DataError, match="no split 'test'; it has train, val"):
    found.split('test')


def test_sides():
  class Paired:
    paired = True

  assert data.sides(Paired, 'AtoB') == ('A', 'B') and data.sides(Paired, 'BtoA') == ('B', 'A')


def test_swatches_are_reproducible():
  pair = swatches.render('train/00003', 32)
  np.testing.assert_array_equal(pair['B'], swatches.render('train/00003', 32)['B'])
  assert not np.array_equal(pair['B'], swatches.render('train/00003', 32, seed=1)['B'])
  # Fixed numbers, so that a change in numpy or in our code is noticed.
  assert pair['A'].astype(int).sum() == EXPECTED_SUMS[0]
  assert pair['B'].astype(int).sum() == EXPECTED_SUMS[1]


EXPECTED_SUMS = (458649, 326497)


def test_style_of_swatches_does_not_depend_on_the_layout():
  style = swatches.style_of('train/00001')
  style = dataclasses.replace(style, contrast=0.0, light_strength=0.1)
  disc = swatches.Shape(kind=2, x=0.5, y=0.7, radius=0.2)
  layouts = [swatches.Layout(0.4, ()), swatches.Layout(0.6, (disc,))]
  targets = [swatches.render_target(layout, style, 32) for layout in layouts]
  sources = [swatches.render_source(layout, 32) for layout in layouts]
  assert not np.array_equal(*sources) and not np.array_equal(*targets)
  # The sky of both has the first colour of the palette, up to the lighting.
  sky = [target[:4].reshape(-1, 3).mean(axis=0) for target in targets]
  assert np.abs(sky[0] - sky[1]).max() < 15


def test_every_factor_of_swatches_shows():
  layout = swatches.draw_layout(np.random.default_rng(0))
  base = {name: sum(limits) / 2 for name, limits in swatches.RANGES.items()}
  render = lambda values: swatches.render_target(layout, swatches.Style(**values), 32).astype(int)
  for name, (low, high) in swatches.RANGES.items():
    moved = base | {name: low + 0.25 * (high - low)}
    assert np.abs(render(base) - render(moved)).mean() > 0.5, name
