"""Reads PyTorch state dicts (`.pth`) without PyTorch, in both of its formats.

The zip format (PyTorch 1.6 and later) contains `*/data.pkl` and one stored entry `*/data/KEY` for
each storage. The older format consists of five pickles (magic number, protocol, system, object,
storage keys), followed by each storage as a number of elements (int64) and its raw bytes. For each
tensor, the pickle has the storage, the offset and the strides.
"""

from collections.abc import Callable
import functools
import math
import pathlib
import struct
from typing import Any, BinaryIO, NamedTuple
import zipfile

import numpy as np

from step_jax.errors import WeightsError
from step_jax.weights import restricted_pickle
from step_jax.weights.restricted_pickle import Maker
from step_jax.weights.tensors import Tensor

# First pickle of the older format.
LEGACY_MAGIC = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'
_LEGACY_PROTOCOL = 1001

_DTYPES = {
  'DoubleStorage': np.dtype('<f8'),
  'FloatStorage': np.dtype('<f4'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
}


class _Storage(NamedTuple):
  """Part of a storage with `total` elements: `numel` elements from `start` on."""

  key: str
  dtype: np.dtype
  start: int
  numel: int
  total: int


class TensorNote:
  """Description of a tensor in the pickle; checked when it is converted to an array."""

  __slots__ = ('storage', 'offset', 'size', 'stride')

  def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *unused: Any):
    self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

  def __setstate__(self, state: Any) -> None:
    """Drops the state: gradients and hooks of a parameter."""


def _size(numbers: Any) -> tuple:
  """Stand-in for `torch.Size` without a copy, because a pickle may request it many times."""
  if not isinstance(numbers, tuple):
    raise TypeError('a size that is no tuple')
  return numbers


STORAGE_NAMES = {(module, name): name for module in ('torch', 'torch.cuda') for name in _DTYPES}
TENSOR_NAMES = {
  **restricted_pickle.ORDERED_DICT,
  ('torch._utils', '_rebuild_tensor'): Maker(TensorNote),
  ('torch._utils', '_rebuild_tensor_v2'): Maker(TensorNote),
  ('torch._utils', '_rebuild_parameter'): Maker(lambda data, *unused: data),
  ('torch.nn.parameter', 'Parameter'): Maker(lambda data, *unused: data),
  ('torch', 'Size'): Maker(_size),
  **STORAGE_NAMES,
}


class _Options:
  """Empty stand-in for `argparse.Namespace`, in which training programs store their options.

  The instruction NEWOBJ needs a real class. Setting attributes of the class itself is an error,
  because `__setstate__` then lacks an argument.
  """

  __slots__ = ()

  def __setstate__(self, state: Any) -> None:
    """Drops the options."""


# A checkpoint has more than a state dict.
_CHECKPOINT_NAMES = {**TENSOR_NAMES, ('argparse', 'Namespace'): _Options}
# Maximum depth of nested dicts, and number of values of an option.
_MOST_NESTED = 8
_MOST_VALUES = 100


class Content(NamedTuple):
  """Content of a file before its tensors are checked.

  Attributes:
    notes: descriptions in its pickle.
    size: number of bytes of a storage in the file; -1 if it is missing.
    raw: reads a storage.
  """

  notes: Any
  size: Callable[[_Storage], int]
  raw: Callable[[_Storage], bytes]


def read_zip(path: pathlib.Path) -> dict[str, Tensor]:
  """Reads the state dict of a zip-format file.

  Raises:
    WeightsError: the file is damaged, has more than a state dict, or requests other names.
  """
  return _state_dict(path, _open_zip(path, TENSOR_NAMES))


def read_legacy(path: pathlib.Path) -> dict[str, Tensor]:
  """Reads the state dict of a file in the older format.

  Raises:
    WeightsError: the file is damaged, has more than a state dict, or requests other names.
  """
  return _state_dict(path, _open_legacy(path, TENSOR_NAMES))


def read_checkpoint(path: pathlib.Path) -> dict[str, Any]:
  """Reads a file with several state dicts and options, in either format.

  Args:
    path: the file.

  Returns:
    Nested dicts with string keys. Leaves are `Tensor`s, strings, numbers, booleans, None, and lists
    of these except tensors. Everything else is dropped.

  Raises:
    WeightsError: the file is damaged, has no dict, or requests other names.
  """
  with path.open('rb') as file:
    start = file.read(2)
  content = (_open_zip if start == b'PK' else _open_legacy)(path, _CHECKPOINT_NAMES)
  if not isinstance(content.notes, dict):
    raise _damaged(path, 'no dict of state dicts')
  return _plain(path, content, content.notes, (), set())


def _plain(path, content: Content, notes: dict, names: tuple, seen: set) -> dict[str, Any]:
  """Plain values of a dict; `names` is its path, and `seen` has the ids of all visited dicts."""
  # Dicts that contain the same dict many times, level by level, would take exponential time.
  if id(notes) in seen or len(names) > _MOST_NESTED:
    raise _damaged(path, 'a dict that is there twice, or dicts nested too deeply')
  seen.add(id(notes))
  values = {}
  for name, note in notes.items():
    if not isinstance(name, str):
      continue
    if isinstance(note, dict):
      values[name] = _plain(path, content, note, (*names, name), seen)
    elif isinstance(note, TensorNote):
      values[name] = tensor(path, content, '.'.join((*names, name)), note)
    elif note is None or isinstance(note, str | int | float):
      values[name] = note
    elif isinstance(note, list | tuple) and len(note) <= _MOST_VALUES:
      values[name] = [x for x in note if isinstance(x, str | int | float)]
  return values


def _open_zip(path: pathlib.Path, names: dict) -> Content:
  with zipfile.ZipFile(path) as archive:
    entries = {info.filename: info for info in archive.infolist()}
    root = next(name for name in entries if name.endswith('/data.pkl')).removesuffix('data.pkl')
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
      raise _damaged(path, 'compressed entries')
    if root + 'byteorder' in entries and archive.read(root + 'byteorder') != b'little':
      raise _damaged(path, 'big-endian storages')
    with archive.open(root + 'data.pkl') as file:
      notes = restricted_pickle.load(file, names, str(path), read_storage_note)

  def raw(storage: _Storage) -> bytes:
    with zipfile.ZipFile(path) as archive:
      return archive.read(f'{root}data/{storage.key}')

  def size(storage: _Storage) -> int:
    entry = entries.get(f'{root}data/{storage.key}')
    return entry.file_size if entry else -1

  return Content(notes, size, raw)


def _open_legacy(path: pathlib.Path, names: dict) -> Content:
  storages = {}

  def persistent(key: Any) -> _Storage:
    storage = read_storage_note(key)
    storages[storage.key] = storage
    return storage

  with path.open('rb') as file:
    load = functools.partial(restricted_pickle.load, file, names, str(path))
    load()  # The magic number, already checked.
    if load() != _LEGACY_PROTOCOL:
      raise _damaged(path, 'an unknown protocol')
    system = load()
    if not isinstance(system, dict) or system.get('little_endian') is not True:
      raise _damaged(path, 'big-endian storages')
    notes, keys = load(persistent=persistent), load()
    places = _legacy_places(path, file, keys, storages)

  def raw(storage: _Storage) -> bytes:
    place, size = places[storage.key]
    with path.open('rb') as file:
      file.seek(place)
      return file.read(size)

  return Content(notes, lambda storage: places.get(storage.key, (0, -1))[1], raw)


def _legacy_places(
  path: pathlib.Path, file: BinaryIO, keys: Any, storages: dict[str, _Storage]
) -> dict[str, tuple[int, int]]:
  """Key -> (offset of the first byte, number of bytes); storages must end at the end of file."""
  end = path.stat().st_size
  places = {}
  if not isinstance(keys, list):
    raise _damaged(path, 'no list of storages')
  for key in keys:
    header = file.read(8)
    if len(header) < 8 or key not in storages:
      raise _damaged(path, 'a storage missing')
    if struct.unpack('<q', header)[0] != storages[key].total:
      raise _damaged(path, 'a storage of another size than announced')
    places[key] = file.tell(), storages[key].total * storages[key].dtype.itemsize
    file.seek(places[key][1], 1)
    if file.tell() > end:
      raise _damaged(path, 'storages larger than the file')
  if file.tell() != end:
    raise _damaged(path, 'more bytes than its storages')
  return places


def read_storage_note(key: Any) -> _Storage:
  """Reads a persistent id as a storage: ('storage', type, key, device, count[, view])."""
  _, kind, name, _, total, *view = key
  start, numel = view[0][1:] if view and view[0] is not None else (0, total)
  counts = [start, numel, total]
  if not isinstance(name, str) or any(type(n) is not int or n < 0 for n in counts):
    raise ValueError('storage')
  if start + numel > total:
    raise ValueError('view')
  return _Storage(name, _DTYPES[kind], start, numel, total)


def _state_dict(path: pathlib.Path, content: Content) -> dict[str, Tensor]:
  """Checks the descriptions in a state dict against the storages in the file."""
  if not isinstance(content.notes, dict):
    raise _damaged(path, 'no state dict')
  tensors = {}
  for name, note in content.notes.items():
    if not isinstance(name, str) or not isinstance(note, TensorNote):
      raise _damaged(path, 'more than tensors: save model.state_dict() alone')
    tensors[name] = tensor(path, content, name, note)
  return tensors


def tensor(path: pathlib.Path, content: Content, name: str, note: TensorNote) -> Tensor:
  """Checks the description of a tensor, and returns the tensor.

  Raises:
    WeightsError: the storage is missing, or the tensor is not within it.
  """
  storage = note.storage
  if not isinstance(storage, _Storage) or not _lies_within(note):
    raise _damaged(path, f'tensor {name!r} outside of its storage')
  if content.size(storage) != storage.total * storage.dtype.itemsize:
    raise _damaged(path, f'a storage of {name!r} that is missing or of the wrong size')
  return Tensor(tuple(note.size), functools.partial(_array, note, content.raw))


def _lies_within(note: TensorNote) -> bool:
  """Whether the tensor is within its storage and has no more elements (as it could by stride 0)."""
  size, stride = note.size, note.stride
  if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
    return False
  if any(type(n) is not int or n < 0 for n in (note.offset, *size, *stride)):
    return False
  last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  return math.prod(size) <= note.storage.numel and note.offset + last < note.storage.numel


def _array(note: TensorNote, raw: Callable[[_Storage], bytes]) -> np.ndarray:
  storage = note.storage
  flat = np.frombuffer(raw(storage), storage.dtype)
  if len(flat) != storage.total:  # as_strided would read past the end.
    raise ValueError('the file has shrunk')
  flat = flat[storage.start + note.offset :]
  strides = [step * storage.dtype.itemsize for step in note.stride]
  # A copy, so that a small part does not keep a large storage in memory.
  return np.array(np.lib.stride_tricks.as_strided(flat, note.size, strides))


def _damaged(path: pathlib.Path, what: str) -> WeightsError:
  return WeightsError(
    f'{path} is not a usable PyTorch file: it has {what}; download it again, or save the '
    'state dict with a recent PyTorch'
  )
