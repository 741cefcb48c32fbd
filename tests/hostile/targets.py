"""Targets of fuzzing: a small valid file of each supported format, and its reader.

A reader must return a valid value or raise a UserError; anything else is a bug.
"""

from collections.abc import Callable
import json
import pathlib
import tempfile
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image
import tf_bundle
import weight_files as files

from step_jax import config as config_lib
from step_jax import weights
from step_jax.data import pairs, pictures
from step_jax.data.labels import Labels
from step_jax.errors import UserError
from step_jax.evaluate import results
from step_jax.methods.step import fitted
from step_jax.methods.step.mining import table
from step_jax.methods.step.original import tf_checkpoint
from step_jax.train import writers
from step_jax.weights import nets, readers
from step_jax.weights.convert import read, read_array

HEADS = 'lpips_alex'


class Target(NamedTuple):
  """A file format.

  Attributes:
    file: name of the file.
    make: writes an intact file to a path.
    read: reads a file, and asserts that the result is valid.
    examples: number of damaged files to read in a short test.
  """

  file: str
  make: Callable[[pathlib.Path], object]
  read: Callable[[pathlib.Path], object]
  examples: int = 30


def _heads() -> dict[str, np.ndarray]:
  shapes = nets.shapes(HEADS).values()
  return {f'lin{i}': np.full(shape, 0.5, np.float32) for i, shape in enumerate(shapes)}


def _h5(path: pathlib.Path) -> None:
  with h5py.File(path, 'w') as file:
    for name, array in _heads().items():
      file.create_dataset(f'{name}', data=array, compression='gzip' if name == 'lin1' else None)


def _vgg_npy(path: pathlib.Path) -> None:
  layers = {f'conv{i}': [np.ones((2, 3), np.float32), np.ones(3, np.float32)] for i in range(3)}
  np.save(path, layers, allow_pickle=True)


def _own(path: pathlib.Path) -> None:
  np.savez(path.with_suffix('.npz'), **_heads())
  weights.convert(path.with_suffix('.npz'), HEADS, path)


def _read_heads(path: pathlib.Path) -> None:
  found, _ = read(path, HEADS)
  for name, shape in nets.shapes(HEADS).items():
    assert found.arrays[name].shape == shape and np.isfinite(found.arrays[name]).all()


def _read_tensors(path: pathlib.Path) -> None:
  tensors, _ = readers.read(path)
  for name in tensors:
    assert read_array(tensors, name, str(path)).dtype == np.float32


def _tensorflow(path: pathlib.Path) -> None:
  tf_bundle.write(path.with_suffix(''), {**_heads(), 'global_step': np.int64(7)})


def _read_tensorflow(path: pathlib.Path) -> None:
  tensors = tf_checkpoint.read(path)
  arrays = [tensor.read() for tensor in tensors.values()]
  assert [array.shape for array in arrays] == [tensor.shape for tensor in tensors.values()]
  data = path.with_suffix('.data-00000-of-00001')
  assert sum(array.nbytes for array in arrays) <= data.stat().st_size


def _picture(kind: str, mode: str, **options) -> Callable[[pathlib.Path], None]:
  def make(path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = 'maker'
    Image.fromarray(pixels).convert(mode).save(path, kind, exif=exif, **options)

  return make


def _label_map(path: pathlib.Path) -> None:
  labels = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3)
  labels.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
  labels.save(path)


def _read_label_map(path: pathlib.Path) -> None:
  labels = Labels('index', 3).read(path)
  assert labels.ndim == 2 and labels.dtype == np.uint8 and labels.max() < 3


def _read_picture(path: pathlib.Path) -> None:
  image = pictures.read_picture(path)
  assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _read_record(path: pathlib.Path) -> None:
  try:
    image = pairs._decode(path.read_bytes())
  except pairs._UNREADABLE:  # Reported in one line, with the position of the record.
    return
  assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _neighbors(path: pathlib.Path) -> None:
  index = np.arange(20, dtype=np.int32).reshape(10, 2) % 10
  np.savez_compressed(path, key='key', nearest=index, farthest=index)


def _mine(scratch):
  raise UserError('mined anew')


def _read_neighbors(path: pathlib.Path) -> None:
  found = table.load_or_mine(path, 'key', _mine)
  assert found.nearest.max() < len(found.nearest) == len(found.farthest)


def _codes(path: pathlib.Path) -> None:
  np.save(path, np.ones((10, 4), np.float32))


def _read_codes(path: pathlib.Path) -> None:
  assert np.isfinite(fitted.read_codes(path.parent, 4)).all()


def _encoder(path: pathlib.Path) -> None:
  fitted.write(path.parent, fitted.Encoder('finetune', 7, '0' * 64), np.ones((3, 2), np.float32))
  (path.parent / fitted.CODES_FILE).unlink()


def _read_encoder(path: pathlib.Path) -> None:
  found = fitted.read(path.parent)
  assert found and str(found).isprintable() and isinstance(found.step, int)


def _results(path: pathlib.Path) -> None:
  score = dict(hash='1', group='reconstruction', title='PSNR', better='higher', value=1.0)
  score |= dict(interval=[0.5, 1.5], definition={'data': 'x'}, values=[1.0])
  whole = dict(format=results.FORMAT, stage='translate', step=1, checkpoint='latest', seed=0)
  whole |= dict(data={'path': 'p', 'split': 'val'}, features='random', skipped={'a': 'b'})
  path.write_text(json.dumps({**whole, 'pictures': ['a'], 'scores': {'psnr': score}}))


def _read_results(path: pathlib.Path) -> None:
  found = results.read(path.parent)
  if found:
    results.table(found)


def _config(path: pathlib.Path) -> None:
  config_lib.save(config_lib.load(config_lib.stage_file('translate') + ':facades'), path.parent)


def _read_config(path: pathlib.Path) -> None:
  found = config_lib.read(path.parent)
  assert isinstance(found.stage, str) and dict(config_lib.flatten(found))


def _metrics(path: pathlib.Path) -> None:
  path.write_text(''.join(json.dumps({'step': i, 'loss': i / 3}) + '\n' for i in range(4)))


def _read_metrics(path: pathlib.Path) -> None:
  for row in writers.read_metrics(path.parent):
    assert isinstance(row['step'], int) and all(type(row[k]) is float for k in row if k != 'step')


def _torch(kind: str) -> Callable[[pathlib.Path], object]:
  return lambda path: files.torch_save(path, _heads_of_pytorch(), kind)


def _heads_of_pytorch() -> dict[str, np.ndarray]:
  return {f'{k}.model.1.weight': a.reshape(1, -1, 1, 1) for k, a in _heads().items()}


TARGETS = {
  'pth, zip': Target('x.pth', _torch('zip'), _read_heads),
  'pth, older': Target('x.pth', _torch('legacy'), _read_heads),
  'npy of a pickle': Target('x.npy', _vgg_npy, _read_tensors, 50),
  'npz': Target('x.npz', lambda path: np.savez_compressed(path, **_heads()), _read_heads),
  'h5': Target('x.h5', _h5, _read_heads),
  'safetensors': Target('x.safetensors', _own, _read_heads),
  'TensorFlow index': Target('x.index', _tensorflow, _read_tensorflow, 50),
  'png': Target('x.png', _picture('png', 'RGB'), _read_picture, 50),
  'png with alpha': Target('x.png', _picture('png', 'RGBA'), _read_picture),
  'png of a palette': Target('x.png', _picture('png', 'P'), _read_picture),
  'label map': Target('x.png', _label_map, _read_label_map, 50),
  'jpeg': Target('x.jpg', _picture('jpeg', 'RGB'), _read_picture, 50),
  'jpeg of four inks': Target('x.jpg', _picture('jpeg', 'CMYK'), _read_picture),
  'webp': Target('x.webp', _picture('webp', 'RGBA'), _read_picture, 50),
  'record': Target('x.png', _picture('png', 'RGB'), _read_record),
  'neighbors.npz': Target('neighbors.npz', _neighbors, _read_neighbors, 50),
  'codes.npy': Target('codes.npy', _codes, _read_codes, 50),
  'encoder.json': Target(fitted.FILE, _encoder, _read_encoder, 50),
  'results.json': Target(results.FILE, _results, _read_results, 50),
  'config.json': Target(config_lib.FILE, _config, _read_config),
  'metrics.jsonl': Target(writers.METRICS_FILE, _metrics, _read_metrics, 50),
}


class Bench:
  """A folder for damaged files of one format."""

  def __init__(self, name: str):
    self.target = TARGETS[name]
    self._folder = tempfile.TemporaryDirectory()
    self.path = pathlib.Path(self._folder.name) / self.target.file
    self.target.make(self.path)
    self.whole = self.path.read_bytes()
    self.target.read(self.path)
    self.beside = sorted(path.name for path in self.path.parent.iterdir())

  def survives(self, content: bytes) -> bool:
    """Reads a file; returns whether it was accepted instead of refused with one line."""
    self.path.write_bytes(content)
    try:
      self.target.read(self.path)
    except UserError as error:
      assert str(error).isprintable(), str(error)
      return False
    finally:
      left = {path.name for path in self.path.parent.iterdir()} - {f'.{self.path.stem}-0'}
      assert sorted(left) == self.beside
    return True

  def close(self) -> None:
    self._folder.cleanup()
