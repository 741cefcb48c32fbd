"""Codes in files: writing, use as styles, and options with files."""

import json
import logging
from typing import NamedTuple

import ml_collections
import numpy as np
from PIL import Image
import pytest

from step_jax import methods
from step_jax.data import pictures
from step_jax.errors import ConfigError, DataError, RunError
from step_jax.infer import codes, encoding, files
from step_jax.methods import Method, Option


class RegionCodes(NamedTuple):
  codes: np.ndarray
  valid: np.ndarray

  def interpolate(self, other, share):
    return RegionCodes(self.codes + share * (other.codes - self.codes), self.valid & other.valid)


class Encoder:
  """Encoder whose codes are the means of regions."""

  method = 'regions'

  def __init__(self, classes):
    self.code_shape, self.code_digest = (classes, 1), f'means of {classes}'

  def encode(self, image, labels, gain=1.0):
    inside = [labels == label for label in range(self.code_shape[0])]
    means = [[gain * image[mask].mean()] if mask.any() else [0.0] for mask in inside]
    return RegionCodes(np.array(means), np.array([mask.any() for mask in inside]))

  def pack(self, code):
    return np.where(code.valid[:, None], code.codes, np.nan)

  def unpack(self, array):
    if array.shape != self.code_shape:
      raise ValueError(f'{array.shape}, where {self.code_shape} is needed')
    return RegionCodes(np.nan_to_num(array), ~np.isnan(array).all(axis=1))


class Run(Encoder):
  """Run that paints a label map with the mean colours of regions."""

  config = ml_collections.ConfigDict(
    {'stage': 'regions', 'data': {'resize': 0, 'direction': 'AtoB'}}
  )
  step = 7

  def draw(self, count, seed):
    return RegionCodes(
      np.arange(seed, seed + count)[:, None, None].repeat(2, axis=1), np.ones((count, 2), bool)
    )

  def translate(self, labels, code, add=0):
    return np.uint8(code.codes[labels].repeat(3, axis=-1) + add)


def read_labels(run, path, image):
  labels = np.asarray(Image.open(path))
  assert labels.shape == image.shape[:2]
  return labels


def read_source(run, path, half, resize):
  labels = np.asarray(Image.open(path))
  return labels, labels[..., None].repeat(3, axis=-1)


@pytest.fixture(autouse=True)
def method(monkeypatch):
  here = __name__
  monkeypatch.setitem(
    methods.METHODS,
    'regions',
    Method(
      'regions', '', (), (), '',
      read_source=f'{here}:read_source',
      codes=f'{here}:Encoder',
      options=(
        Option('add', 'grey', kind=int),
        Option('gain', 'of codes', of='encode', kind=float),
        Option('labels', 'label maps', of='encode', nargs='+', read=f'{here}:read_labels'),
        Option('classes', 'how many', of='codes', kind=int),
      ),
    ),
  )  # fmt: skip
  monkeypatch.setattr(methods, 'load', lambda *_: Run(2))


def write(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(values, np.uint8)).save(path)
  return path


@pytest.fixture
def folder(tmp_path):
  """Two uniformly grey images with label maps of the same names; one lacks a region."""
  for name, grey, labels in (('a', 10, [[0, 1]]), ('b', 30, [[1, 1]])):
    write(tmp_path / f'in/{name}.png', np.full((1, 2, 3), grey))
    write(tmp_path / f'maps/{name}.png', labels)
  return tmp_path


def encode(folder, **arguments):
  options = {'labels': [folder / 'maps']} | arguments.pop('options', {})
  return encoding.write([folder / 'in'], folder / 'codes', options=options, **arguments)


def test_codes_without_a_run(folder):
  written = encode(folder, method='regions', options={'classes': 3})
  assert [path.name for path in written] == ['a.npy', 'b.npy']
  np.testing.assert_array_equal(np.load(written[1]), np.float32([[np.nan], [30], [np.nan]]))
  record = json.loads((folder / 'codes/codes.json').read_text())
  assert record['shape'] == [3, 1] and record['digest'] == 'means of 3'
  assert record['codes'] == {name: f'{folder}/in/{name[0]}.png' for name in ('a.npy', 'b.npy')}
  with pytest.raises(ConfigError, match='--method step: its codes need a trained run'):
    encode(folder, method='step')
  with pytest.raises(ConfigError, match='--side-by-side: needs a run'):
    encode(folder, method='regions', options={'classes': 3}, side_by_side=True)


def test_codes_of_one_encoder_stay_together(folder):
  encode(folder, workdir='run', options={'gain': 2.0})
  record = json.loads((folder / 'codes/codes.json').read_text())
  assert (record['stage'], record['step'], record['digest']) == ('regions', 7, 'means of 2')
  (folder / 'in/a.png').unlink()
  encode(folder, workdir='run')
  record = json.loads((folder / 'codes/codes.json').read_text())
  assert record['codes'].keys() == {'a.npy', 'b.npy'}
  assert np.load(folder / 'codes/a.npy')[0] == 20 and np.load(folder / 'codes/b.npy')[1] == 30
  with pytest.raises(RunError, match='codes.json: has codes of another encoder: choose another'):
    encode(folder, method='regions', options={'classes': 3})
  with pytest.raises(ConfigError, match='--classes: is only for codes without a run'):
    encode(folder, workdir='run', options={'classes': 2})


def test_no_input_is_replaced_by_a_code(folder):
  write(folder / 'in/a.jpg', np.zeros((1, 2, 3)))
  with pytest.raises(DataError, match='would both be a.npy'):
    encode(folder, workdir='run')
  assert not (folder / 'codes').exists()
  taken = folder / 'codes/b.npy'
  write(folder / 'codes/b.png', [[0, 1]]).rename(taken)
  with pytest.raises(DataError, match='b.npy: is the input .*which results would overwrite'):
    encoding.write(
      [folder / 'in/b.png'], folder / 'codes', workdir='run', options={'labels': [taken]}
    )


def values(paths):
  return [pictures.read_picture(path)[0, :, 0].tolist() for path in paths]


def test_codes_and_images_are_styles(folder):
  a, b = encode(folder, workdir='run')
  layout = write(folder / 'layouts/x.png', [[1, 0, 1]])
  translate = lambda **options: values(files.translate('run', [layout], folder / 'out', **options))
  assert translate(styles=[a, b]) == [[10, 10, 10], [30, 0, 30]]
  image = folder / 'in/b.png'
  labels = {'style_labels': [folder / 'maps/b.png']}
  assert translate(styles=[a, image], options=labels) == [[10, 10, 10], [30, 0, 30]]
  by_name = {'style_labels': [folder / 'maps'], 'style_gain': 0.5, 'add': 1}
  assert translate(styles=[a, image], options=by_name) == [[11, 11, 11], [16, 1, 16]]
  blended = translate(interpolate=[a, image], options=labels, steps=3)
  assert blended == [[10, 10, 10], [20, 5, 20], [30, 0, 30]]
  assert translate(sample=2, seed=5) == [[5, 5, 5], [6, 6, 6]]


def test_files_of_options_fit_the_images(folder):
  layout = write(folder / 'layouts/x.png', [[1, 0, 1]])
  for labels, match in (
    ([folder / 'maps/a.png'], '--style-labels: got 1 files for 2 images'),
    ([folder / 'layouts'], r'--style-labels .*layouts: has no file named a\.\*'),
  ):
    with pytest.raises((ConfigError, DataError), match=match):
      files.translate(
        'run',
        [layout],
        folder / 'out',
        styles=[folder / 'in/a.png', folder / 'in/b.png'],
        options={'style_labels': labels},
      )
  with pytest.raises(ConfigError, match='--sampler: is not an option of regions runs, but of step'):
    files.translate('run', [layout], folder / 'out', sample=1, options={'sampler': 'gaussian'})
  assert not (folder / 'out').exists()


def test_codes_of_other_encoders_are_reported(folder, caplog):
  a, _ = encode(folder, workdir='run')
  record = json.loads((folder / 'codes/codes.json').read_text())
  (folder / 'codes/codes.json').write_text(json.dumps(record | {'digest': 'x', 'step': 3}))
  with caplog.at_level(logging.WARNING):
    codes.read(Run(2), a)
  assert 'a.npy: was written by another encoder (regions at step 3)' in caplog.text
  with pytest.raises(RunError, match=r'a.npy: is not a code of this run: \(2, 1\), where \(3, 1\)'):
    codes.read(Run(3), a)
  (folder / 'codes/a.npy').write_bytes(b'nothing')
  with pytest.raises(RunError, match='a.npy: is damaged .*`step-jax codes`'):
    codes.read(Run(2), a)


def test_codes_that_are_arrays():
  run = Run(1)
  unpack = codes.of_trees(type('Plain', (), {'code_shape': (2,)})(), 'unpack')
  assert unpack(np.zeros(2)).dtype == np.float32
  for array in (np.zeros(3), np.full(2, np.nan), np.zeros(2, int)):
    with pytest.raises(ValueError, match=r'expected finite numbers \[2\]'):
      unpack(array)
  assert codes.of_trees(run, 'pack') == run.pack
