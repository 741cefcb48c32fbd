"""Reads TensorFlow checkpoints (`PREFIX.index`, `PREFIX.data-…`) without TensorFlow.

The format is the tensor bundle of `tf.train.Saver` since TensorFlow 1.0. The index is a sorted
string table in LevelDB's format. It maps names of variables to protocol buffers with type, shape,
data file and offset.
"""

import collections
from collections.abc import Iterator
import functools
import math
import pathlib
import struct
from typing import Any

import numpy as np

from step_jax.errors import WeightsError
from step_jax.weights.tensors import Tensor

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
# Names share prefixes with the previous name. Maximum ratio of the total length of names to that of
# the index, beyond the first bytes.
_NAMES = 64
_NAMES_FREE = 1 << 20
# Maximum length of an axis.
_LONGEST = 1 << 31
# Supported values of `DataType`; variables of other types are ignored.
_DTYPES = {
  1: np.dtype('<f4'),
  2: np.dtype('<f8'),
  3: np.dtype('<i4'),
  9: np.dtype('<i8'),
  19: np.dtype('<f2'),
}


def read(prefix: pathlib.Path) -> dict[str, Tensor]:
  """Reads names and shapes of all numeric variables; values are read on access.

  Args:
    prefix: prefix of the files, such as `model.ckpt-1000`; or one of the files.

  Raises:
    WeightsError: there is no checkpoint, or it is damaged or compressed.
  """
  if prefix.suffix == '.index' or prefix.suffix.startswith('.data-'):
    prefix = prefix.with_suffix('')
  index = prefix.with_name(f'{prefix.name}.index')
  if not index.is_file():
    raise WeightsError(
      f'{index}: no such file: give the prefix of a TensorFlow checkpoint, such as model.ckpt-1000'
    )
  try:
    entries = dict(_table(index.read_bytes()))
    header = _message(entries.pop(b''))
    shards = header[1][0]
    if header.get(2, [0])[0] != 0:
      raise ValueError('big-endian')
    tensors, taken = {}, collections.Counter()
    for name, value in entries.items():
      entry = _message(value)
      # Slices are parts of partitioned variables.
      if entry.get(1, [0])[0] in _DTYPES and 7 not in entry:
        tensors[name.decode()] = _tensor(prefix, shards, entry, taken)
    return tensors
  except WeightsError:
    raise
  except Exception as error:  # Damaged files may cause any exception.
    raise WeightsError(
      f'{index} is damaged or not a TensorFlow checkpoint ({type(error).__name__}): copy it again'
    ) from error


def _tensor(
  prefix: pathlib.Path, shards: int, entry: dict[int, list], taken: collections.Counter
) -> Tensor:
  """A variable from its index entry; adds its size to the bytes `taken` from its data file."""
  dtype = _DTYPES[entry[1][0]]
  dims = _message(entry[2][0]).get(2, []) if 2 in entry else []
  shape = tuple(_message(dim).get(1, [0])[0] for dim in dims)
  shard, offset = entry.get(3, [0])[0], entry.get(4, [0])[0]
  size = math.prod(shape) * dtype.itemsize
  path = prefix.with_name(f'{prefix.name}.data-{shard:05d}-of-{shards:05d}')
  if max(shape, default=0) >= _LONGEST:
    raise ValueError('shape')
  if entry.get(5, [0])[0] != size or not path.is_file() or path.stat().st_size < offset + size:
    raise WeightsError(f'{path} is missing or cut short: copy it again')
  taken[path] += size
  if taken[path] > path.stat().st_size:  # Variables would need more memory than the file.
    raise ValueError('variables that share their bytes')

  def array() -> np.ndarray:
    with path.open('rb') as file:
      file.seek(offset)
      return np.frombuffer(file.read(size), dtype).reshape(shape)

  return Tensor(shape, array)


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yields the entries of a sorted string table, whose index block has the positions of blocks.

  Raises:
    ValueError: not a table, or blocks overlap, or names are too long. Damaged tables may cause
      other exceptions.
  """
  footer = data[-_FOOTER:]
  if len(data) < _FOOTER or struct.unpack('<Q', footer[-8:])[0] != _MAGIC:
    raise ValueError('no table')
  place = functools.reduce(lambda at, _: _varint(footer, at)[1], range(2), 0)
  end = names = 0
  for _, handle in _block(data, footer[place:]):
    start, at = _varint(handle, 0)
    if start < end:
      raise ValueError('blocks that overlap')
    end = start + _varint(handle, at)[0]
    for name, value in _block(data, handle):
      names += len(name)
      if names > _NAMES * len(data) + _NAMES_FREE:
        raise ValueError('names that are too long')
      yield name, value


def _block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yields the entries of a block; a key is stored without the prefix shared with the last key."""
  offset, at = _varint(handle, 0)
  size, _ = _varint(handle, at)
  block = data[offset : offset + size]
  if len(block) < size or data[offset + size] != 0:
    raise ValueError('cut short or compressed')
  (restarts,) = struct.unpack('<I', block[-4:])
  end, at, key = len(block) - 4 * (restarts + 1), 0, b''
  while at < end:
    shared, at = _varint(block, at)
    fresh, at = _varint(block, at)
    length, at = _varint(block, at)
    key = key[:shared] + block[at : at + fresh]
    at += fresh
    yield key, block[at : at + length]
    at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
  """Reads a number with seven bits per byte, lowest first; returns it and the next position."""
  value = shift = 0
  while True:
    byte = data[at]
    if shift > 63:
      raise ValueError('a number that is too long')
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at


def _message(data: bytes) -> dict[int, list[Any]]:
  """Fields of a protocol buffer: number -> values, as integers or bytes."""
  fields, at = {}, 0
  while at < len(data):
    tag, at = _varint(data, at)
    kind = tag & 7
    if kind == 0:
      value, at = _varint(data, at)
    else:
      length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
      value, at = data[at : at + length], at + length
    fields.setdefault(tag >> 3, []).append(value)
  return fields
