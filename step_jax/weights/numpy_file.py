"""Reads NumPy files without running their pickles: `.npz`, and `vgg16.npy` of the original StEP.

`vgg16.npy` (machrisaa's conversion of the authors' Caffe weights) is a pickled 0-d object array
around a dict: layer -> [kernel, bias]. Its tensors are returned as `LAYER/0` and `LAYER/1`.
"""

import functools
import math
import pathlib
from typing import Any
import zipfile

import numpy as np

from step_jax import untrusted
from step_jax.errors import WeightsError
from step_jax.weights import restricted_pickle
from step_jax.weights.restricted_pickle import Maker
from step_jax.weights.tensors import Tensor


class _DType:
  """Stand-in for a pickled `numpy.dtype`."""

  __slots__ = ('kind', 'order')

  def __init__(self, kind: Any, *unused: Any):
    self.kind, self.order = kind, '<'

  def __setstate__(self, state: Any) -> None:
    self.order = '>' if state[1] == '>' else '<'


class _ArrayNote:
  """Stand-in for a pickled `numpy.ndarray`; checked when it is converted to an array."""

  __slots__ = ('shape', 'dtype', 'fortran', 'data')

  def __init__(self, *unused: Any):
    self.shape = self.dtype = self.fortran = self.data = None

  def __setstate__(self, state: Any) -> None:
    _, self.shape, self.dtype, self.fortran, self.data = state


_NAMES = {
  **{(f'numpy.{core}.multiarray', '_reconstruct'): Maker(_ArrayNote) for core in ('core', '_core')},
  ('numpy', 'ndarray'): 'ndarray',
  ('numpy', 'dtype'): Maker(_DType),
  # Python 3 writes bytes in this way if the pickle must be readable by Python 2. They stay text
  # until the array is needed, because a pickle may request the bytes of one text many times.
  ('_codecs', 'encode'): Maker(lambda text, *unused: text),
}


def read_npy(path: pathlib.Path) -> dict[str, Tensor]:
  """Reads a pickled dict of [kernel, bias] lists, written by Python 2 or 3.

  Raises:
    WeightsError: the file is damaged, has other content, or requests other names.
  """
  with path.open('rb') as file:
    shape, _, dtype = untrusted.npy_header(file)
    if not dtype.hasobject or shape != ():
      raise WeightsError(
        f'{path} holds a plain array of {list(shape)}: vgg16.npy is a pickled dict of layers'
      )
    notes = restricted_pickle.load(file, _NAMES, str(path))
  (layers,) = notes.data
  return {
    f'{layer}/{i}': Tensor(tuple(note.shape), functools.partial(_array, note))
    for layer, pair in layers.items()
    for i, note in enumerate(pair)
  }


def read_npz(path: pathlib.Path) -> dict[str, Tensor]:
  """Reads a `.npz` of plain arrays, compressed or not.

  Raises:
    WeightsError: an entry is not a plain array, or its length differs from its header.
  """
  tensors = {}
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      with archive.open(info) as file:
        shape, _, dtype = untrusted.npy_header(file)
        if dtype.hasobject or file.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
          raise WeightsError(f'{path} is damaged: {info.filename!r} is not as long as it should be')
      name = info.filename.removesuffix('.npy')
      if name in tensors:
        raise WeightsError(f'{path} is damaged: it has {name!r} twice')
      tensors[name] = Tensor(shape, functools.partial(_npz_array, path, info))
  return tensors


def _npz_array(path: pathlib.Path, info: zipfile.ZipInfo) -> np.ndarray:
  with zipfile.ZipFile(path) as archive, archive.open(info) as file:
    return untrusted.npy_array(file, info.file_size)


def _array(note: _ArrayNote) -> np.ndarray:
  if note.dtype.kind not in ('f2', 'f4', 'f8'):
    raise ValueError('type')
  # Strings of Python 2, and encoded bytes, arrive as text.
  data = note.data.encode('latin1') if isinstance(note.data, str) else note.data
  flat = np.frombuffer(data, note.dtype.order + note.dtype.kind)
  return flat.reshape(note.shape, order='F' if note.fortran else 'C')
