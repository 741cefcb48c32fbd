"""Reading the networks of NVIDIA's StyleGAN2-ADA pickles (`.pkl`) without running their code.

Such a file pickles whole modules: each object is the source code of its class, which the original
loader executes, and its state. Here the code is not even looked at. The state holds parameters,
buffers and submodules, which are all that is kept. A tensor's storage is a PyTorch file of the
older format inside of the pickle.
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
# Three networks of 1024 px have some 700.
_MOST_STORAGES = 10_000
# Bytes of the pickles ahead of a storage; they have about 300.
_HEADER = 4096


class _Module:
  """What the pickle says of a module: its state, checked only when it is read."""

  __slots__ = ('state',)

  def __init__(self, meta: Any):
    self.state = meta.get('state') if isinstance(meta, dict) else None

  def __setstate__(self, state: Any) -> None:
    """Drops what is set later: there is nothing in the originals."""


class _EasyDict(dict):
  """Stand-in for `dnnlib.EasyDict`, a dict that the pickle makes by the instruction NEWOBJ.

  That takes true classes alone. An attempt to set attributes of the class itself ends in an error,
  since `__setstate__` lacks an argument then.
  """

  __slots__ = ()

  def __setstate__(self, state: Any) -> None:
    """Drops the state: the original keeps none."""


class _Storages:
  """The storages in a pickle, which are files themselves."""

  def __init__(self, where: str):
    self._where = where
    self._data: dict[str, memoryview] = {}

  def load(self, data: Any) -> Any:
    """Stand-in for `torch.storage._load_from_bytes`: notes a storage and where its bytes are."""
    if not isinstance(data, bytes):
      raise TypeError('a storage that is no bytes')
    # A pickle may give one storage again and again, and each time it is looked at.
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
    # No copy, for the same reason.
    self._data[key] = memoryview(data)[file.tell() :]
    if count != storage.total:
      raise ValueError('a storage of another size than announced')
    return storage._replace(key=key)

  def content(self, notes: Any) -> torch_file.Content:
    """Notes and storages, for `torch_file.tensor`."""
    size = lambda storage: len(self._data.get(storage.key, b''))
    raw = lambda storage: self._data[storage.key]
    return torch_file.Content(notes, size, raw)


def read(path: pathlib.Path) -> dict[str, dict[str, Tensor]]:
  """Reads the networks of a file.

  Args:
    path: the file.

  Returns:
    `G`, `D` and `G_ema`, those that are there: names of parameters and buffers, as in
    `state_dict()`, to tensors.

  Raises:
    WeightsError: the file is damaged, is no such pickle, or asks for foreign names.
  """
  storages = _Storages(str(path))
  names = {
    **torch_file.TENSOR_NAMES,
    ('dnnlib.util', 'EasyDict'): _EasyDict,
    ('torch_utils.persistence', '_reconstruct_persistent_obj'): Maker(_Module),
    ('torch.storage', '_load_from_bytes'): Maker(storages.load),
    # Names of buffers that are not saved.
    ('builtins', 'set'): Maker(lambda *unused: None),
    ('__builtin__', 'set'): Maker(lambda *unused: None),
  }
  try:
    with path.open('rb') as file:
      notes = restricted_pickle.load(file, names, str(path))
  except OSError as error:
    raise WeightsError(f'cannot read {path}: {error.strerror}; check the path') from error
  if not isinstance(notes, dict):
    raise _foreign(path, 'it holds no networks')
  content = storages.content(notes)
  networks = {}
  for name in NETWORKS:
    if isinstance(notes.get(name), _Module):
      networks[name] = {}
      _collect(path, content, notes[name], (), set(), networks[name])
  if not networks:
    raise _foreign(path, f'it holds none of {", ".join(NETWORKS)}')
  return networks


def _collect(path, content, module: _Module, names: tuple, seen: set, arrays: dict) -> None:
  """Adds the parameters and buffers of a module and of those in it, each of which is there once."""
  state = module.state
  if id(module) in seen or len(names) > _MOST_NESTED or not isinstance(state, dict):
    raise _foreign(path, f'its module {".".join(names)!r} is not what modules look like')
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
