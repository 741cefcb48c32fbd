"""Reads the networks of NVIDIA's StyleGAN2-ADA pickles (`.pkl`) without running their code.

Such a file pickles whole modules. Each object has the source code of its class, which the original
loader executes, and its state. This reader ignores the code and keeps only parameters, buffers and
submodules of the state. The storage of a tensor is a PyTorch file in the older format inside of the
pickle.
"""

import io
import pathlib
import struct
from typing import Any

from step_jax.errors import WeightsError
from step_jax.weights import restricted_pickle, torch_file
from step_jax.weights.restricted_pickle import Maker
from step_jax.weights.tensors import Tensor

NETWORKS = ('G', 'D', 'G_ema')
_MOST_NESTED = 8
# Three networks of 1024 px have about 700.
_MOST_STORAGES = 10_000
# Maximum size of the pickles before a storage; they have about 300 bytes.
_HEADER = 4096


class _Module:
  """Stand-in for a module: its state, which is checked when it is read."""

  __slots__ = ('state',)

  def __init__(self, meta: Any):
    self.state = meta.get('state') if isinstance(meta, dict) else None

  def __setstate__(self, state: Any) -> None:
    """Drops state that is set later; published files have none."""


class _EasyDict(dict):
  """Stand-in for `dnnlib.EasyDict`, a dict that the pickle creates with the instruction NEWOBJ.

  NEWOBJ needs a real class. Setting attributes of the class itself is an error, because
  `__setstate__` then lacks an argument.
  """

  __slots__ = ()

  def __setstate__(self, state: Any) -> None:
    """Drops the state; the original has none."""


class _Storages:
  """Storages in a pickle, each of which is a PyTorch file."""

  def __init__(self, where: str):
    self._where = where
    self._data: dict[str, memoryview] = {}

  def load(self, data: Any) -> Any:
    """Stand-in for `torch.storage._load_from_bytes`: records a storage and its bytes."""
    if not isinstance(data, bytes):
      raise TypeError('a storage that is not bytes')
    # A pickle may load the same storage many times, and each time takes work.
    if len(self._data) == _MOST_STORAGES:
      raise ValueError('too many storages')
    file = io.BytesIO(data[:_HEADER])
    if data[: len(torch_file.LEGACY_MAGIC)] != torch_file.LEGACY_MAGIC:
      raise ValueError('a storage of another format')
    for _ in range(3):  # Magic number, protocol, system.
      restricted_pickle.load(file, {}, self._where)
    storage = restricted_pickle.load(
      file, torch_file.STORAGE_NAMES, self._where, torch_file.read_storage_note
    )
    restricted_pickle.load(file, {}, self._where)  # The key.
    (count,) = struct.unpack('<q', file.read(8))
    key = str(len(self._data))
    # Not a copy, for the same reason.
    self._data[key] = memoryview(data)[file.tell() :]
    if count != storage.total:
      raise ValueError('a storage of another size than announced')
    return storage._replace(key=key)

  def content(self, notes: Any) -> torch_file.Content:
    """Descriptions and storages, for `torch_file.tensor`."""
    size = lambda storage: len(self._data.get(storage.key, b''))
    raw = lambda storage: self._data[storage.key]
    return torch_file.Content(notes, size, raw)


def read(path: pathlib.Path) -> dict[str, dict[str, Tensor]]:
  """Reads the networks of a file.

  Args:
    path: the file.

  Returns:
    Those of `G`, `D` and `G_ema` that the file has, each as name of a parameter or buffer, as in
    `state_dict()`, -> tensor.

  Raises:
    WeightsError: the file is damaged, is not such a pickle, or requests other names.
  """
  storages = _Storages(str(path))
  names = {
    **torch_file.TENSOR_NAMES,
    ('dnnlib.util', 'EasyDict'): _EasyDict,
    ('torch_utils.persistence', '_reconstruct_persistent_obj'): Maker(_Module),
    ('torch.storage', '_load_from_bytes'): Maker(storages.load),
    # Sets with the names of buffers that are not saved.
    ('builtins', 'set'): Maker(lambda *unused: None),
    ('__builtin__', 'set'): Maker(lambda *unused: None),
  }
  try:
    with path.open('rb') as file:
      notes = restricted_pickle.load(file, names, str(path))
  except OSError as error:
    raise WeightsError(f'cannot read {path}: {error.strerror}; check the path') from error
  if not isinstance(notes, dict):
    raise _foreign(path, 'it has no networks')
  content = storages.content(notes)
  networks = {}
  for name in NETWORKS:
    if isinstance(notes.get(name), _Module):
      networks[name] = {}
      _collect(path, content, notes[name], (), set(), networks[name])
  if not networks:
    raise _foreign(path, f'it has none of {", ".join(NETWORKS)}')
  return networks


def _collect(path, content, module: _Module, names: tuple, seen: set, arrays: dict) -> None:
  """Adds parameters and buffers of a module and its submodules, each of which may appear once."""
  state = module.state
  if id(module) in seen or len(names) > _MOST_NESTED or not isinstance(state, dict):
    raise _foreign(path, f'its module {".".join(names)!r} has an unexpected structure')
  seen.add(id(module))
  for kind in ('_parameters', '_buffers'):
    for name, note in _dict(state, kind).items():
      if isinstance(name, str) and isinstance(note, torch_file.TensorNote):
        full = '.'.join((*names, name))
        arrays[full] = torch_file.tensor(path, content, full, note)
  for name, inner in _dict(state, '_modules').items():
    if isinstance(name, str) and isinstance(inner, _Module):
      _collect(path, content, inner, (*names, name), seen, arrays)


def _dict(state: dict, kind: str) -> dict:
  inner = state.get(kind)
  return inner if isinstance(inner, dict) else {}


def _foreign(path: pathlib.Path, reason: str) -> WeightsError:
  return WeightsError(
    f'{path} is not a StyleGAN2-ADA pickle of PyTorch: {reason}; '
    'convert older TensorFlow pickles to PyTorch first'
  )
