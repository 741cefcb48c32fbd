"""Translation of files: names of results, and protection of inputs."""

import os
import unicodedata

import ml_collections
import numpy as np
from PIL import Image
import pytest

from step_jax.data import pictures
from step_jax.errors import ConfigError, DataError
from step_jax.infer import files, gallery


class Painter:
  """A run whose code is the mean of an image, and whose outputs have this grey value."""

  method = 'step'
  config = ml_collections.ConfigDict({'data': {'resize': 0, 'direction': 'AtoB'}})

  def __init__(self):
    self.calls = 0

  def encode(self, image):
    return np.full(2, image.mean(), np.float32)

  def draw(self, count, seed, sampler=''):
    return np.arange(count)[:, None] + np.full(2, seed, np.float32)

  def translate(self, source, z, tile=0):
    self.calls += 1
    self.tile = tile
    return np.full_like(source, np.uint8(z[0]))


@pytest.fixture(autouse=True)
def painter(monkeypatch):
  run = Painter()
  monkeypatch.setattr(files.methods, 'load', lambda *_: run)
  return run


def write(path, value=9, size=(6, 4)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
  return path


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refuse(match, inputs, out, **options):
  """Checks that a translation is refused and changes no files."""
  folders = {path if path.is_dir() else path.parent for path in [*inputs, out] if path.exists()}
  before = {folder: contents(folder) for folder in folders}
  with pytest.raises(DataError, match=match) as caught:
    files.translate('run', inputs, out, **(options or {'sample': 1}))
  assert '\n' not in str(caught.value) and 'another --out' in str(caught.value)
  assert {folder: contents(folder) for folder in folders} == before


def test_results_are_named_after_their_inputs(tmp_path):
  inputs = [write(tmp_path / f'in/{name}') for name in ('a.jpg', 'b.PNG')]
  one = files.translate('run', inputs, tmp_path / 'one', sample=1)
  assert [path.name for path in one] == ['a.png', 'b.png']
  two = files.translate('run', [tmp_path / 'in'], tmp_path / 'two', sample=2, seed=5)
  assert [path.name for path in two] == ['a_00.png', 'a_01.png', 'b_00.png', 'b_01.png']
  assert [pictures.read_picture(path).max() for path in two] == [5, 6, 5, 6]
  assert sorted(contents(tmp_path / 'two')) == [*(path.name for path in two), 'grid.png']
  assert pictures.read_picture(tmp_path / 'two/grid.png').shape == (2 * 6 + 2, 3 * 4 + 4, 3)


def test_a_command_can_be_repeated(tmp_path):
  write(tmp_path / 'in/a.png')
  for seed in (1, 2):
    (path,) = files.translate('run', [tmp_path / 'in'], tmp_path / 'out', sample=1, seed=seed)
    assert pictures.read_picture(path).max() == seed
  assert sorted(contents(tmp_path / 'out')) == ['a.png', 'grid.png']


def test_results_of_one_name_are_refused(tmp_path):
  x = [write(tmp_path / f'in/{name}') for name in ('x.jpg', 'x.png')]
  refuse(r'x\.png: its result and that of .*x\.jpg would both be x\.png', x, tmp_path / 'out')
  refuse('would both be x_00.png', [tmp_path / 'in'], tmp_path / 'out', sample=2)
  other = write(tmp_path / 'other/x.jpg')
  refuse('would both be x.png', [x[0], other], tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_names_that_are_equal_on_some_file_systems_are_refused(tmp_path):
  names = [unicodedata.normalize(form, 'é') for form in ('NFC', 'NFD')]
  for a, b in (('x', 'X'), names):
    inputs = [write(tmp_path / folder / f'{name}.png') for folder, name in ((a, a), (b, b))]
    refuse('would both be', inputs, tmp_path / 'out')


def test_the_grid_does_not_consume_results(tmp_path):
  image = write(tmp_path / 'in/grid.jpg')
  refuse('its result and the overview of all results would both be grid.png', [image], tmp_path)
  files.translate('run', [image], tmp_path / 'out', sample=2)
  assert sorted(contents(tmp_path / 'out')) == ['grid.png', 'grid_00.png', 'grid_01.png']


def test_inputs_are_never_replaced(tmp_path, monkeypatch):
  folder = tmp_path / 'in'
  image, photo = write(folder / 'a.png'), write(folder / 'b.jpg')
  (tmp_path / 'link').symlink_to(folder)
  for inputs, out in (
    ([image], folder),
    ([folder], folder),
    ([folder], tmp_path / 'link'),
    ([tmp_path / 'link'], folder),
    ([folder], folder / '../in'),
  ):
    refuse('which results would overwrite', inputs, out)
    refuse('which results would overwrite', [folder], out, sample=2)
  monkeypatch.chdir(folder)
  refuse('which results would overwrite', [folder], files.files_lib.path('.'))
  # A style image is an input too, also one with the name of the grid.
  style = write(tmp_path / 'out/b.png')
  refuse('b.png: is the input', [photo], tmp_path / 'out', styles=[style])
  grid = write(tmp_path / 'out/grid.png')
  refuse('grid.png: is the input', [photo], tmp_path / 'out', styles=[grid])


def test_inputs_are_known_by_links_too(tmp_path):
  image = write(tmp_path / 'in/a.png')
  for link in (os.link, os.symlink):
    out = tmp_path / link.__name__
    out.mkdir()
    link(image, out / 'a.png')
    refuse('which results would overwrite', [image], out)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
  image, out = write(tmp_path / 'in/a.png'), tmp_path / 'out'
  out.write_text('kept')
  with pytest.raises(DataError, match='out: is a file: give --out a folder'):
    files.translate('run', [image], out, sample=1)
  with pytest.raises(DataError, match='in/b.png: no such image'):
    files.translate('run', [image, tmp_path / 'in/b.png'], tmp_path / 'new', sample=1)
  assert out.read_text() == 'kept' and not (tmp_path / 'new').exists()


def test_hidden_files_and_folders_named_like_images_are_skipped(tmp_path):
  write(tmp_path / 'in/a.png')
  (tmp_path / 'in/._a.png').write_bytes(b'of another system')
  (tmp_path / 'in/x.png').mkdir()
  files.translate('run', [tmp_path / 'in'], tmp_path / 'out', sample=1)
  assert sorted(contents(tmp_path / 'out')) == ['a.png', 'grid.png']


def test_results_are_written_as_they_are_made(tmp_path, painter):
  for name in 'abc':
    write(tmp_path / f'in/{name}.png')
  (tmp_path / 'in/b.png').write_bytes(b'damaged')
  with pytest.raises(DataError, match='b.png: cannot be read'):
    files.translate('run', [tmp_path / 'in'], tmp_path / 'out', sample=2)
  assert sorted(contents(tmp_path / 'out')) == ['a_00.png', 'a_01.png']
  assert painter.calls == 2


def test_blends_and_given_styles(tmp_path):
  image = write(tmp_path / 'in/a.png')
  styles = [write(tmp_path / f'{value}.png', value, (8, 5)) for value in (10, 30)]
  values = lambda paths: [pictures.read_picture(path).max() for path in paths]
  blends = files.translate('run', [image], tmp_path / 'out', interpolate=styles, steps=3)
  assert values(blends) == [10, 20, 30]
  given = files.translate('run', [image], tmp_path / 'out', styles=styles)
  assert values(given) == [10, 30]
  grid = pictures.read_picture(tmp_path / 'out/grid.png')
  assert grid.shape == (8 + 2 + 6, 4 + 2 + 5 + 2 + 5, 3)
  assert [int(grid[y, x, 0]) for y, x in ((0, 0), (0, 6), (0, 13), (15, 0))] == [255, 10, 30, 9]


def test_images_in_tiles_keep_their_size(tmp_path, painter, monkeypatch):
  image = write(tmp_path / 'in/a.png')
  config = {'data': {'resize': 2, 'direction': 'AtoB'}}
  monkeypatch.setattr(painter, 'config', ml_collections.ConfigDict(config), raising=False)
  for options, size in (({}, (3, 2, 3)), ({'tile': 8}, (6, 4, 3))):
    (path,) = files.translate('run', [image], tmp_path / 'out', sample=1, options=options)
    assert pictures.read_picture(path).shape == size and painter.tile == options.get('tile', 0)


def test_halves_need_two_columns(tmp_path):
  thin = write(tmp_path / 'in/a.png', size=(4, 1))
  with pytest.raises(DataError, match='a.png: is 1 px wide'):
    files.translate('run', [thin], tmp_path / 'out', sample=1, side_by_side=True)


def test_a_grid_of_many_images_stays_small(monkeypatch):
  monkeypatch.setattr(gallery, '_MOST_PIXELS', 100_000)
  image = np.zeros((200, 400, 3), np.uint8)
  for rows, columns, shape in (
    (1, 1, (1, 1)),
    (2, 2, (2, 2)),
    (1000, 3, (8, 3)),
    (1, 1000, (1, 24)),
  ):
    grid = gallery.Grid(rows, columns)
    for _ in range(rows):
      grid.add(iter([image] * columns))
    assert (len(grid._rows), len(grid._rows[0])) == shape
    assert grid.image().size < 3 * 130_000
  assert grid.thumbnail(image).shape == (32, 64, 3)
  assert gallery.Grid(1, 1).thumbnail(image[:9, :9]).shape == (9, 9, 3)


def test_a_video_of_a_blend(tmp_path):
  image, dark, light = (write(tmp_path / f'{v}.png', v) for v in (9, 10, 210))
  options = {'interpolate': [dark, light], 'steps': 3, 'video': tmp_path / 'new/morph.webp'}
  files.translate('run', [image], tmp_path / 'out', **options)
  with Image.open(tmp_path / 'new/morph.webp') as video:
    assert video.n_frames == 4 and video.info['loop'] == 0
    greys = []
    for number in range(4):
      video.seek(number)
      greys.append(np.asarray(video.convert('RGB')).mean())
  np.testing.assert_allclose(greys, [10, 110, 210, 110], atol=3)  # Forward and back.
  options['steps'] = 1
  files.translate('run', [image], tmp_path / 'out', **options)
  with Image.open(tmp_path / 'new/morph.webp') as video:
    assert video.n_frames == 1


def test_videos_that_cannot_be(tmp_path):
  image, other = write(tmp_path / 'a.png'), write(tmp_path / 'b.png')
  blend = {'interpolate': [image, other]}
  for match, inputs, options in (
    ('give --interpolate', [image], {'sample': 1, 'video': 'x.webp'}),
    ('the suffix .webp', [image], {**blend, 'video': 'x.mp4'}),
    ('shows exactly one input, not 2', [image, other], {**blend, 'video': 'x.webp'}),
  ):
    with pytest.raises(ConfigError, match=match):
      files.translate('run', inputs, tmp_path / 'out', **options)
  still = write(tmp_path / 'still.webp')
  refuse('would overwrite', [image], tmp_path / 'out', interpolate=[still, other], video=still)
