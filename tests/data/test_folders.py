"""Image folders of every layout, and error messages for invalid ones."""

import numpy as np
from PIL import Image
import pytest

from step_jax.data import folders
from step_jax.errors import DataError


def write(path, left=10, right=200, size=(8, 6)):
  """Writes an image with two grey halves, each of `size` (width, height)."""
  path.parent.mkdir(parents=True, exist_ok=True)
  image = np.full((size[1], 2 * size[0], 3), left, np.uint8)
  image[:, size[0] :] = right
  Image.fromarray(image).save(path)


def names(examples):
  return [example.name for example in examples]


def test_side_by_side(tmp_path):
  for split, count in (('train', 3), ('val', 2)):
    for i in range(count):
      write(tmp_path / split / f'{i}.png')
  found = folders.scan(tmp_path)
  assert found.layout == 'side_by_side'
  assert names(found.splits['train']) == ['train/0.png', 'train/1.png', 'train/2.png']
  sides = found.splits['val'][0].load()
  assert sides['A'].shape == sides['B'].shape == (6, 8, 3)
  assert sides['A'].max() == 10 and sides['B'].min() == 200


@pytest.mark.parametrize('style', ['train/A', 'trainA', 'train/source', 'A', 'input'])
def test_two_folders(tmp_path, style):
  twin = {'A': 'B', 'source': 'target', 'input': 'output'}
  last = next(key for key in twin if style.endswith(key))
  other = style.removesuffix(last) + twin[last]
  for i in range(4):
    write(tmp_path / style / f'{i}.png', 1, 1)
    write(tmp_path / other / f'{i}.jpg', 99, 99)
  found = folders.scan(tmp_path)
  assert found.layout == 'two_folders'
  assert len(found.splits['train']) == 3 and len(found.splits['val']) == 1
  sides = found.splits['train'][0].load()
  assert sides['A'].max() < 5 and sides['B'].min() > 90


def test_unpaired(tmp_path):
  for i in range(3):
    write(tmp_path / f'{i}.webp')
  found = folders.scan(tmp_path, 'unpaired')
  assert set(found.splits['train'][0].load()) == {'A'}


def split_of(found):
  return {name: split for split, examples in found.splits.items() for name in names(examples)}


def test_held_out_images_stay_when_others_change(tmp_path):
  for i in range(40):
    write(tmp_path / f'{i}.png')
  before = folders.scan(tmp_path, val_fraction=0.2)
  assert before.held_out and len(before.splits['val']) > 1
  for i in range(40):
    write(tmp_path / f'new{i}.png')
    after = folders.scan(tmp_path, val_fraction=0.2)
    assert split_of(after).items() > split_of(before).items()
  for i in range(30):
    (tmp_path / f'{i}.png').unlink()
  fewer = folders.scan(tmp_path, val_fraction=0.2)
  assert split_of(fewer).items() < split_of(after).items()


def test_the_fraction_is_a_threshold():
  many = [f'{i}.png' for i in range(10_000)]
  held = [folders.hold_out(many, fraction) for fraction in (0.1, 0.25, 0.5)]
  assert held[0] < held[1] < held[2]
  np.testing.assert_allclose([len(names) for names in held], [1000, 2500, 5000], rtol=0.1)


@pytest.mark.parametrize(('fraction', 'count'), [(0.0, 1), (1e-9, 1), (1.0, 2)])
def test_no_split_is_empty(fraction, count):
  assert len(folders.hold_out(['a', 'b', 'c'], fraction)) == count


def test_the_fingerprint_includes_the_splits(tmp_path):
  for i in range(20):
    write(tmp_path / f'{i}.png')
  first, same, other = (folders.scan(tmp_path, val_fraction=f).fingerprint for f in (0.2, 0.2, 0.5))
  assert first == same != other
  write(tmp_path / 'new.png')
  assert folders.scan(tmp_path, val_fraction=0.2).fingerprint != first


def test_hidden_files_are_skipped(tmp_path):
  for name in ('a.png', 'b.png', '.thumbnails/c.png', '.d.png', 'notes.txt'):
    write(tmp_path / name) if name.endswith('png') else (tmp_path / name).write_text('')
  found = folders.scan(tmp_path, 'unpaired', val_fraction=0.5)
  assert sum(map(len, found.splits.values())) == 2


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda d: None, 'no such folder'),
    (lambda d: d.mkdir(), 'holds no png, jpg or webp'),
    (lambda d: write(d / 'train' / 'one.png'), 'a single image'),
    (lambda d: write(d / 'val' / 'one.png'), 'no train'),
    (
      lambda d: (write(d / 'A/x.png'), write(d / 'B/y.png')),
      r'A/x.png: has no file of the same name',
    ),
    (lambda d: (write(d / 'A/x.png'), (d / 'B').mkdir()), 'B: holds no png'),
    (
      lambda d: (write(d / 'A/x.png'), write(d / 'A/x.jpg'), write(d / 'B/x.png')),
      'one stem',
    ),
  ],
)
def test_mismatches_are_named(tmp_path, make, message):
  folder = tmp_path / 'pictures'
  make(folder)
  with pytest.raises(DataError, match=message) as caught:
    folders.scan(folder)
  assert '\n' not in str(caught.value)


def test_an_image_without_halves_is_named(tmp_path):
  for i in range(2):
    (tmp_path / 'train').mkdir(exist_ok=True)
    Image.new('RGB', (7, 4)).save(tmp_path / 'train' / f'{i}.png')
  found = folders.scan(tmp_path)
  with pytest.raises(DataError, match=r'\d.png: is 7 px wide, which has no two halves'):
    found.splits['train'][0].load()


def test_unknown_layout(tmp_path):
  with pytest.raises(DataError, match='side_by_side'):
    folders.scan(tmp_path, 'zip')
