"""Reads untrusted files: arrays, JSON, links.

No code in them is executed, and memory is proportional to the size of the file, whatever its
headers claim.
"""

import io
import json
import math
import os
from typing import Any, BinaryIO
import zipfile

import numpy as np

from step_jax import files
from step_jax.errors import RunError, first_line, shown

# Headers written by NumPy have a few hundred bytes, but NumPy reads headers of any size.
_HEADER_BYTES = 1 << 16
# Maximum ratio of the size of an archive when inflated to that of its file, beyond the first bytes.
# A zip archive of zeros reaches 1000.
_INFLATION = 64
_INFLATION_FREE = 1 << 20
# Numbers and text only: no pickles, records or nested arrays.
_KINDS = 'biufU'


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Shape, Fortran order and type of an array, from the start of an npy stream.

  Moves the position of the seekable `file` to the end of the header. NumPy may raise any exception
  for a damaged file.
  """
  start = io.BytesIO(file.read(_HEADER_BYTES))
  version = np.lib.format.read_magic(start)
  formats = np.lib.format
  read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
  header = read(start)
  file.seek(start.tell())
  return header


def npy_array(file: BinaryIO, size: int) -> np.ndarray:
  """The plain array of an npy stream of `size` bytes.

  Raises:
    ValueError: it is not an array of numbers or text, or its length differs from its header. NumPy
      and zipfile may raise other exceptions for damaged files.
  """
  shape, fortran, dtype = npy_header(file)
  length = math.prod(shape) * dtype.itemsize
  if dtype.kind not in _KINDS or min(shape, default=0) < 0 or file.tell() + length != size:
    raise ValueError('its length differs from its header')
  data = file.read(length)
  if len(data) != length:
    raise ValueError('cut short')
  # A bytearray, because some arrays are modified later.
  return np.frombuffer(bytearray(data), dtype).reshape(shape, order='F' if fortran else 'C')


def read_arrays(path: files.Path, remedy: str) -> dict[str, np.ndarray]:
  """The arrays of an npz file by name; the name of the array of an npy file is ''.

  Args:
    path: the file.
    remedy: what to do if it is damaged, for the message.

  Raises:
    RunError: the file is damaged, or has other content than plain arrays.
  """
  try:
    with _opened(path) as file:
      size = _size(file)
      if path.suffix == '.npy':
        return {'': npy_array(file, size)}
      return _members(file, size)
  except RunError:  # The bucket cannot be read.
    raise
  except Exception as error:  # Parsers may raise anything on damaged files.
    raise damaged(path, error, remedy) from None


def _members(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(file) as archive:
    members = archive.infolist()
    most = _INFLATION_FREE + _INFLATION * size
    if sum(member.file_size for member in members) > most:
      raise ValueError('too large when decompressed')
    arrays = {}
    for member in members:
      with archive.open(member) as opened:
        arrays[member.filename.removesuffix('.npy')] = npy_array(opened, member.file_size)
    return arrays


def _opened(path: files.Path) -> BinaryIO:
  source = files.readable(path)
  return source if isinstance(source, io.BytesIO) else source.open('rb')


def _size(file: BinaryIO) -> int:
  size = file.seek(0, os.SEEK_END)
  file.seek(0)
  return size


def npy_type(path: files.Path, remedy: str) -> tuple[tuple[int, ...], np.dtype]:
  """Shape and type of the array in an npy file; checks its length.

  Raises:
    RunError: the file is damaged.
  """
  try:
    with _opened(path) as file:
      size = _size(file)
      shape, _, dtype = npy_header(file)
      if file.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError('its length differs from its header')
      return shape, dtype
  except RunError:  # The bucket cannot be read.
    raise
  except Exception as error:  # NumPy may raise anything.
    raise damaged(path, error, remedy) from None


def damaged(path: files.Path, error: Exception | str, remedy: str) -> RunError:
  """A one-line error for a damaged file."""
  return RunError(f'{path}: is damaged ({first_line(error)}): {remedy}')


def read_json(text: str) -> dict[str, Any]:
  """Parses a JSON object.

  Raises:
    ValueError: the text is not JSON, not an object, or nested too deeply.
  """
  try:
    value = json.loads(text)
  except RecursionError:
    raise ValueError('nested too deeply') from None
  if not isinstance(value, dict):
    raise ValueError('not an object')
  return value


def check_links(folder: files.Path) -> None:
  """Checks that no link leads out of the folder of a stage; buckets have no links.

  Raises:
    RunError: there is such a link.
  """
  if files.in_bucket(folder) or not folder.is_dir():
    return
  inside = folder.resolve()
  for path in sorted(folder.rglob('*')):
    if path.is_symlink() and not path.resolve().is_relative_to(inside):
      raise RunError(
        f'{shown(str(path))}: is a link to a file outside of the folder, which training would '
        'overwrite: replace it by a copy of the file'
      )
