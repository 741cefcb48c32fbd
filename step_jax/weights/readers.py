"""Reads the tensor names and shapes of weights files; formats are recognised by content."""

from collections.abc import Iterator
import contextlib
import functools
import pathlib
import zipfile

import numpy as np

from step_jax.errors import WeightsError
from step_jax.weights import numpy_file, torch_file
from step_jax.weights.tensors import Tensor


def read(path: pathlib.Path) -> tuple[dict[str, Tensor], dict[str, str]]:
  """Reads names and shapes of `.pth`, `.npy`, `.npz`, `.h5` and `.safetensors`; executes nothing.

  Returns:
    Tensors by their names in the file, and its metadata (only for `.safetensors`).

  Raises:
    WeightsError: the file cannot be opened, has another format, or is damaged.
  """
  with one_line_errors(path):
    with path.open('rb') as file:
      start = file.read(512)
    tensors, metadata = _read(path, start)
    if not all(isinstance(name, str) for name in tensors):  # h5py returns invalid UTF-8 as bytes.
      raise ValueError('names')
    return tensors, metadata


@contextlib.contextmanager
def one_line_errors(path: pathlib.Path) -> Iterator[None]:
  """Turns errors while reading a weights file into a WeightsError that names the file."""
  try:
    yield
  except WeightsError:
    raise
  except OSError as error:
    reason = error.strerror or 'damaged or cut short'
    raise WeightsError(f'cannot read {path}: {reason}; check the path or get it again') from error
  except Exception as error:  # Parsers may raise anything on damaged files.
    raise WeightsError(
      f'{path} is damaged or cut short ({type(error).__name__}); download or copy it again'
    ) from error


def _read(path: pathlib.Path, start: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
  if start.startswith(b'PK'):
    with zipfile.ZipFile(path) as archive:
      is_torch = any(name.endswith('/data.pkl') for name in archive.namelist())
    return (torch_file.read_zip if is_torch else numpy_file.read_npz)(path), {}
  if start.startswith(torch_file.LEGACY_MAGIC):
    return torch_file.read_legacy(path), {}
  if start.startswith(b'\x93NUMPY'):
    return numpy_file.read_npy(path), {}
  if start.startswith(b'\x89HDF\r\n'):
    return _read_h5(path), {}
  if start[8:9] == b'{':  # After the length of the header.
    return _read_safetensors(path)
  raise WeightsError(f'{path} is {_foreign(start)}')


def _foreign(start: bytes) -> str:
  """Description of an unsupported file, and what to do about it."""
  if start.lstrip()[:1] == b'<':
    return 'a web page, not weights: the download went wrong; get the file again'
  if start.startswith(b'version https://git-lfs'):
    return 'a Git LFS pointer, not weights: run `git lfs pull` where it came from'
  if start[257:262] == b'ustar':
    return "in PyTorch's tar format of before 2017: load it with PyTorch and save it again"
  return 'of no known format: expected .pth, .npy, .npz, .h5 or .safetensors'


def _read_h5(path: pathlib.Path) -> dict[str, Tensor]:
  import h5py

  tensors = {}

  def visit(name: str, item: h5py.HLObject) -> None:
    if isinstance(item, h5py.Dataset):
      if item.external or item.is_virtual:  # Its data is in other files.
        raise WeightsError(f'{path} was refused: {name!r} refers to another file')
      tensors[name] = Tensor(item.shape, functools.partial(_h5_array, path, name))

  with h5py.File(path, 'r') as file:
    file.visititems(visit)
  return tensors


def _h5_array(path: pathlib.Path, name: str) -> np.ndarray:
  import h5py

  with h5py.File(path, 'r') as file:
    array = file[name]
    if array.dtype.kind != 'f':  # Elements of other types may be arrays of any size.
      raise ValueError('type')
    return array[()]


def _read_safetensors(path: pathlib.Path) -> tuple[dict[str, Tensor], dict[str, str]]:
  import safetensors

  with safetensors.safe_open(path, framework='np') as file:
    tensors = {
      name: Tensor(
        tuple(file.get_slice(name).get_shape()), functools.partial(_safe_array, path, name)
      )
      for name in file.keys()  # noqa: SIM118 - it is no dict.
    }
    return tensors, file.metadata() or {}


def _safe_array(path: pathlib.Path, name: str) -> np.ndarray:
  import safetensors

  with safetensors.safe_open(path, framework='np') as file:
    return file.get_tensor(name)
