"""Label maps: palettes, preparation together with images, and detection of unknown classes."""

import io
import os
import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest

from step_jax import cli, data, fields
from step_jax import config as config_lib
from step_jax.data import augment, builder, pictures, pipeline, swatches
from step_jax.data.labels import COLORS, Labels, majority
from step_jax.errors import ConfigError, DataError, UserError

# The Facades data of pix2pix, at the default location of `--data facades` or elsewhere.
FACADES = pathlib.Path(os.environ.get('STEP_JAX_TEST_FACADES', 'data/facades'))


def data_settings(path, **changes) -> ConfigDict:
  """A group `data` with the fields of label maps."""
  declared = fields.take(fields.SHARED, data=(*fields.DATA, *fields.LABELS))
  values = {name.removeprefix('data.'): field.default for name, field in declared.items()}
  return ConfigDict(values | {'path': str(path)} | changes)


def write_set(folder, classes=3, train=4, val=2, size=(12, 10), codes=True):
  """Writes the layout of SPADE and similar projects; returns label maps by name."""
  rng = np.random.default_rng(0)
  maps = {}
  for split, count in (('train', train), ('val', val)):
    for kind in ('images', 'labels', *(['codes'] if codes else [])):
      (folder / split / kind).mkdir(parents=True)
    for i in range(count):
      labels = rng.integers(0, classes, size, dtype=np.uint8)
      maps[f'{split}/images/{i}.jpg'] = labels
      Image.fromarray(labels).save(folder / split / f'labels/{i}.png')
      # The red channel is the class, as far as JPEG keeps it.
      Image.fromarray(np.dstack([labels * 80] * 3)).save(folder / split / f'images/{i}.jpg')
      if codes:
        np.save(folder / split / f'codes/{i}.npy', np.full((classes, 2), i, np.float64))
  return maps


def test_a_set_with_label_maps_and_codes(tmp_path):
  maps = write_set(tmp_path)
  opened = data.open_config(data_settings(tmp_path, classes=3))
  assert opened.splits == {'train': 4, 'val': 2} and not opened.paired
  assert opened.arrays == {'codes': (3, 2)}
  assert data.roles(opened, 'AtoB') == {
    'source': 'A', 'target': 'A', 'labels': 'labels', 'codes': 'codes'
  }  # fmt: skip
  for split in opened.splits:
    for example in opened.split(split):
      np.testing.assert_array_equal(example['labels'], maps[example['name']])
      assert example['codes'].dtype == np.float32
      assert (example['codes'] == int(pathlib.Path(example['name']).stem)).all()
  # Without label maps in the config, the same prepared folder gives images only.
  again = data.PairSet(opened.folder)
  assert again.split('val')[0].keys() == {'name', 'A'}


def test_batches_hold_label_maps_and_arrays(tmp_path):
  maps = write_set(tmp_path)
  opened = data.open_config(data_settings(tmp_path, classes=3))
  roles = data.roles(opened, 'AtoB')
  examples = pipeline.eval_examples(opened.split('val'), roles, (8, 8))
  (batch,) = pipeline.eval_batches(examples, 4)
  assert batch['labels'].shape == (4, 8, 8) and batch['labels'].dtype == np.uint8
  assert batch['codes'].shape == (4, 3, 2)
  np.testing.assert_array_equal(batch['labels'][1], maps['val/images/1.jpg'][2:10, 1:9])


@settings(max_examples=40, deadline=None)
@given(
  height=st.integers(6, 14),
  width=st.integers(6, 14),
  flip=st.booleans(),
  rescale=st.sampled_from([(), ((1.0, 1.5),), ((0.5, 1.25),)]),
  seed=st.integers(0, 999),
)
def test_label_maps_share_the_view_of_their_image(height, width, flip, rescale, seed):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, (height, width), dtype=np.uint8)
  # Blocks, so that bicubic resizing keeps their middles.
  labels = labels.repeat(5, 0).repeat(5, 1)
  example = {'target': np.dstack([labels * 255] * 3), 'labels': labels, 'codes': np.ones((2, 3))}
  view = augment.augment(example, rng, (16, 16), rescale, flip)
  assert view['labels'].shape == (16, 16) and view['labels'].dtype == np.uint8
  assert set(np.unique(view['labels'])) <= {0, 1}
  assert view['codes'] is example['codes']
  image = view['target'][..., 0]
  agree = (image > 127) == (view['labels'] == 1)
  if rescale:
    agree |= np.abs(image.astype(int) - 127) < 110  # Edges, which only the image blurs.
  assert agree.all()


def test_left_and_right_change_places_when_mirrored():
  reader = Labels('index', 4, ((1, 3),))
  labels = np.array([[1, 1, 0, 3]], np.uint8)
  seen = set()
  for seed in range(20):
    view = augment.augment(
      {'labels': labels}, np.random.default_rng(seed), (1, 4), flip=True, mirror=reader.mirror()
    )
    seen.add(tuple(view['labels'][0].tolist()))
  assert seen == {(1, 1, 0, 3), (1, 0, 3, 3)}
  # Rows of arrays with one row per class are swapped too; other arrays are not.
  arrays = {'codes': np.arange(8.0).reshape(4, 2), 'other': np.arange(3.0), 'number': np.ones(())}
  for seed in range(8):
    view = augment.augment(
      {'labels': labels, **arrays}, np.random.default_rng(seed), (1, 4), (), True, reader.mirror()
    )
    order = [0, 1, 2, 3] if view['labels'][0, 1] else [0, 3, 2, 1]
    np.testing.assert_array_equal(view['codes'], arrays['codes'][order])
    assert view['other'] is arrays['other'] and view['number'] is arrays['number']
  with pytest.raises(ConfigError, match=r'flip_swaps=.*classes are 0 to 3'):
    Labels('index', 4, ((1, 4),)).mirror()


@settings(max_examples=30, deadline=None)
@given(
  size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
  to=st.tuples(st.integers(1, 60), st.integers(1, 60)),
  values=st.lists(st.integers(0, 254), min_size=1, max_size=4),
  seed=st.integers(0, 99),
)
def test_resizing_makes_no_new_class(size, to, values, seed):
  labels = np.random.default_rng(seed).choice(np.array(values, np.uint8), size)
  resized = pictures.resize(labels, to)
  assert resized.shape == to and set(np.unique(resized)) <= set(values)


def save(path, array, mode=None, **options):
  Image.fromarray(array, mode).save(path, **options)
  return path


def test_every_kind_of_png_is_read(tmp_path):
  labels = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
  reader = Labels('index', 3)
  palette = Image.fromarray(labels)
  palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
  palette.save(tmp_path / 'palette.png')
  save(tmp_path / 'grey.png', labels)
  save(tmp_path / '16.png', labels.astype(np.uint16))
  save(tmp_path / 'rgb.png', np.dstack([labels] * 3))
  save(tmp_path / 'rgba.png', np.dstack([labels] * 3 + [labels * 0 + 255]))
  for path in sorted(tmp_path.iterdir()):
    found = reader.read(path)
    assert found.dtype == np.uint8, path
    np.testing.assert_array_equal(found, labels, err_msg=path.name)
  save(tmp_path / 'bit.png', labels > 0)
  np.testing.assert_array_equal(reader.read(tmp_path / 'bit.png'), labels > 0)
  from_1 = Labels('index_from_1', 3).read(save(tmp_path / 'from_1.png', labels + 1))
  np.testing.assert_array_equal(from_1, labels)
  void = np.where(labels == 2, 255, labels).astype(np.uint8)
  found = Labels('index_void', 3).read(save(tmp_path / 'void.png', void))
  np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize('palette', COLORS)
def test_exact_colours_are_kept(tmp_path, palette):
  colors = np.array(COLORS[palette], np.uint8)
  labels = np.random.default_rng(0).integers(0, len(colors), (9, 7), dtype=np.uint8)
  reader = Labels(palette, len(colors))
  found = reader.read(save(tmp_path / 'x.png', colors[labels]))
  np.testing.assert_array_equal(found, labels)


def test_a_user_defined_palette(tmp_path):
  path = tmp_path / 'palette.txt'
  path.write_text('0 0 0 road\n\n255 0 0 red car\n0 0 255\n')
  reader = Labels(str(path), 3)
  image = np.array([[[0, 0, 0], [250, 3, 9], [20, 20, 240]]], np.uint8).repeat(9, 0).repeat(9, 1)
  found = reader.read(save(tmp_path / 'x.jpg', image, quality=95))
  np.testing.assert_array_equal(found[:, 4::9], [[0, 1, 2]] * 9)
  other = Labels(str(tmp_path / 'other.txt'), 3)
  (tmp_path / 'other.txt').write_text('0 0 0\n255 0 0\n0 255 255')
  assert other.identity != reader.identity


@settings(max_examples=40, deadline=None)
@given(
  size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
  classes=st.integers(1, 5),
  seed=st.integers(0, 999),
)
def test_majority_filter(size, classes, seed):
  labels = np.random.default_rng(seed).integers(0, classes, size, dtype=np.uint8)
  found = majority(labels, classes)
  padded = np.pad(labels, 2, mode='edge')
  for y in range(size[0]):
    for x in range(size[1]):
      counts = np.bincount(padded[y : y + 5, x : x + 5].ravel(), minlength=classes)
      assert counts[found[y, x]] == counts.max()
      if counts[labels[y, x]] == counts.max():
        assert found[y, x] == labels[y, x]


def jpeg(array, tmp_path):
  Image.fromarray(array).save(tmp_path / 'x.jpg')
  return tmp_path / 'x.jpg'


@pytest.mark.parametrize(
  ('reader', 'array', 'name', 'message'),
  [
    (Labels('index', 3), [[0, 7]], 'x.png', 'has the class 7, but data.classes=3 allows 0 to 2'),
    (Labels('index', 3), [[0, 255]], 'x.png', 'set data.palette=index_void'),
    (Labels('index_void', 3), [[2, 255]], 'x.png', 'allows 0 to 1: set data.classes=4'),
    (Labels('index_from_1', 3), [[0, 1]], 'x.png', 'has the value 0'),
    (Labels('index', 3), [[0, 1]], 'x.jpg', 'is a JPEG file'),
    (Labels('index', 3), [[[0, 0, 0], [1, 2, 3]]], 'x.png', 'is a colour image'),
    (Labels('swatches', 5), [[[255, 0, 255]] * 3], 'x.png', 'most of its colours are not'),
    (Labels('swatches', 4), [[[230, 230, 230]] * 3], 'x.png', 'has 5 colours: set data.classes=5'),
    (Labels('facade', 12), [[0]], 'x.png', 'use one of index, .*, or a file'),
  ],
)
def test_mismatches_are_reported_in_one_line(tmp_path, reader, array, name, message):
  path = save(tmp_path / name, np.array(array, np.uint8))
  with pytest.raises(UserError, match=message) as caught:
    reader.read(path)
  assert str(caught.value).isprintable()


def test_large_numbers_are_refused(tmp_path):
  path = save(tmp_path / 'x.png', np.array([[0, 4000]], np.uint16))
  with pytest.raises(DataError, match='has the class 4000: classes are numbers from 0 to 254'):
    Labels('index', 3).read(path)


def test_the_number_of_classes_is_checked_against_the_data(tmp_path):
  write_set(tmp_path, classes=5)
  with pytest.raises(
    DataError, match=r'^label map of \w+/images/\d.jpg: has the class 4, but'
  ) as caught:
    data.open_config(data_settings(tmp_path, classes=4))
  assert str(caught.value).endswith('set data.classes=5, or correct the label maps')
  assert data.open_config(data_settings(tmp_path, classes=5)).labels.classes == 5


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (lambda d: (d / 'train/labels/2.png').unlink(), 'images/2.jpg: has no file of the same name'),
    (lambda d: (d / 'train/codes/2.npy').unlink(), 'images/2.jpg: has no file of the same name'),
    (lambda d: (d / 'val/codes').rename(d / 'val/other'), 'has a folder'),
    (lambda d: (d / 'train/codes').rename(d / 'train/target'), 'cannot have this name'),
    (lambda d: np.save(d / 'train/codes/2.npy', np.ones(3)), r'has the shape \(3,\)'),
    (lambda d: np.save(d / 'train/codes/2.npy', [{}]), 'is damaged'),
    (lambda d: save(d / 'train/labels/2.png', np.zeros((20, 10), np.uint8)), 'another aspect'),
  ],
)
def test_a_set_that_does_not_fit_is_named(tmp_path, spoil, message):
  write_set(tmp_path)
  spoil(tmp_path)
  with pytest.raises(UserError, match=message) as caught:
    data.open_config(data_settings(tmp_path, classes=3))
  assert '\n' not in str(caught.value)


def test_changed_label_maps_and_arrays_are_noticed(tmp_path):
  write_set(tmp_path)
  contents = []
  for change in (
    lambda: None,
    lambda: save(tmp_path / 'train/labels/0.png', np.zeros((12, 10), np.uint8)),
    lambda: np.save(tmp_path / 'train/codes/0.npy', np.zeros((3, 2), np.int8) + 9),
  ):
    change()
    opened = data.open_config(data_settings(tmp_path, classes=3))
    contents.append((opened.fingerprint, opened.contents('train')['train/images/0.jpg']))
  for kind in zip(*contents, strict=True):
    assert len(set(kind)) == 3


def test_sets_are_prepared_with_their_label_maps(tmp_path, capsys):
  write_set(tmp_path / 'in')
  assert cli.main(['prepare', str(tmp_path / 'in'), '--out', str(tmp_path / 'set')]) == 0
  assert '4 train, 2 val (images_labels)' in capsys.readouterr().out
  opened = data.open_config(data_settings(tmp_path / 'set', classes=3))
  assert opened.labels.palette and opened.arrays == {'codes': (3, 2)}
  # For pairs, the colours of one image are the classes.
  (tmp_path / 'pairs/train').mkdir(parents=True)
  for i in range(2):
    pair = swatches.render(f'train/{i}', 32)
    save(tmp_path / f'pairs/train/{i}.png', np.concatenate([pair['B'], pair['A']], axis=1))
  argv = [str(tmp_path / 'pairs'), '--palette', 'swatches', '--direction', 'BtoA']
  assert cli.main(['prepare', *argv, '--out', str(tmp_path / 'other')]) == 0
  opened = data.open_config(data_settings(tmp_path / 'other', palette='swatches', classes=5))
  for example in opened.split('train'):
    expected = swatches.render_labels(swatches.layout_of(f'train/{example["name"][6]}'), 32)
    assert (example['labels'] == expected).mean() > 0.9


def test_a_set_without_label_maps_is_named(tmp_path):
  pairs = builder.prepare(swatches.picture_set(16, 2, 1), tmp_path / 'set')
  with pytest.raises(DataError, match='was prepared without label maps'):
    data.open_config(data_settings(pairs.folder, palette='swatches', classes=5))


def test_label_maps_of_swatches_say_what_is_where(tmp_path):
  settings_ = config_lib.DATASETS['swatches_regional'] | {'resize': 32}
  for regional in (False, True):
    made = swatches.picture_set(32, 4, 1, labelled=True, regional=regional)
    found = builder.prepare(made, tmp_path / f'{regional}')
    opened = data.open_config(
      data_settings(found.folder, **{k: settings_[k] for k in ('palette', 'classes')})
    )
    for example in opened.split('train'):
      exact = example['A'] == np.uint8(swatches.CLASS_COLORS)[example['labels']]
      assert exact.all(axis=-1).mean() > 0.8  # All but the edges.
      assert example['labels'].max() < swatches.NUM_CLASSES


def test_regions_of_swatches_have_their_own_styles():
  name = 'train/00007'
  styles = swatches.region_styles_of(name)
  assert len(styles) == swatches.NUM_CLASSES
  assert len({style.hue for style in styles}) == swatches.NUM_CLASSES
  assert {style.light_angle for style in styles} == {swatches.style_of(name).light_angle}
  pair = swatches.render(name, 32, labelled=True, regional=True)
  layout = swatches.layout_of(name)
  for i, style in enumerate(styles):
    other = swatches.dataclasses.replace(style, hue=style.hue + 0.3, contrast=0.1)
    changed = swatches.render_target(layout, [*styles[:i], other, *styles[i + 1 :]], 32)
    differs = (changed != pair['B']).any(axis=-1)
    # Nothing changes but the class itself, and pixels that it shares with a neighbour.
    inside = pair['labels'] == i
    assert not inside.any() or differs[inside].mean() > 0.9
    near = np.pad(inside, 1)
    near = np.max([near[y : y + 32, x : x + 32] for y in range(3) for x in range(3)], axis=0)
    assert not differs[~near].any()


def away_from_edges(labels):
  """Pixels whose 3x3 neighbourhood has one class."""
  padded = np.pad(labels, 1, mode='edge')
  views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
  return (views == labels[..., None, None]).all(axis=(2, 3))


def test_compression_leaves_no_false_classes():
  layout = swatches.layout_of('train/00001')
  labels = swatches.render_labels(layout, 128) * 2 + 1  # 1, 3, …, 9 of 12.
  buffer = io.BytesIO()
  Image.fromarray(np.uint8(COLORS['facades'])[labels]).save(buffer, 'jpeg', quality=85)
  reader = Labels('facades', 12)
  image = np.asarray(Image.open(buffer))
  nearest = ((image[:, :, None].astype(int) - reader.colors) ** 2).sum(axis=-1).argmin(axis=-1)
  found = reader.from_image(image, 'x')
  inside = away_from_edges(labels)
  assert (found == labels)[inside].mean() > 0.99
  assert (found != labels).mean() < 0.5 * (nearest != labels).mean()


@pytest.mark.skipif(not FACADES.is_dir(), reason=f'no facades in {FACADES}')
def test_facades_have_twelve_classes(tmp_path):
  settings_ = {k: config_lib.DATASETS['facades'][k] for k in ('palette', 'classes', 'direction')}
  (tmp_path / 'train').mkdir()
  for path in sorted((FACADES / 'train').iterdir())[:6]:
    (tmp_path / 'train' / path.name).symlink_to(path.resolve())
  opened = data.open_config(data_settings(tmp_path, **settings_))
  colors = np.array(COLORS['facades'])
  for split in opened.splits:
    for example in opened.split(split):
      labels = example['labels']
      assert labels.shape == example['B'].shape[:2] and labels.max() < 12
      distance = ((example['B'][:, :, None].astype(int) - colors) ** 2).sum(axis=-1)
      nearest = distance.argmin(axis=-1)
      flat = away_from_edges(nearest)
      assert np.mean(nearest[flat] == labels[flat]) > 0.999
