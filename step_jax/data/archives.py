"""Unpacks untrusted tar.gz and zip archives, without links and within limits."""

from collections.abc import Callable, Iterator
import gzip
import pathlib
import shutil
import stat
import tarfile
from typing import BinaryIO
import zipfile
import zlib

from step_jax.errors import DataError, first_line, shown

# Maps the path of a member to its path in the folder; None skips the member.
Place = Callable[[pathlib.PurePosixPath], str | None]

_CHUNK = 1 << 20
_MOST_MEMBERS = 1_000_000
_LONGEST_NAME = 200
# Exceptions of the libraries for damaged archives; disk errors are not included.
_DAMAGED = (
  tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError,
  NotImplementedError, OverflowError, ValueError, NotADirectoryError, IsADirectoryError,
)  # fmt: skip


def unpack(archive: pathlib.Path, folder: pathlib.Path, place: Place, most_bytes: int) -> int:
  """Unpacks the files of an archive into a folder, and returns their number.

  Args:
    archive: a tar.gz or zip file.
    folder: existing folder.
    place: path in the archive -> path in the folder, as text with `/`.
    most_bytes: maximum size of the unpacked archive.

  Raises:
    DataError: the archive is damaged; has paths that lead outside, links, devices or duplicate
      names; or unpacks to more than `most_bytes`. The folder then has some of its files, so use a
      temporary folder.
    OSError: the folder cannot be written to.
  """
  try:
    members = _zip(archive, most_bytes) if _is_zip(archive) else _tar(archive, most_bytes)
    count = 0
    for name, file in members:
      target = place(_checked(name))
      if target is None:
        continue
      path = folder / target
      path.parent.mkdir(parents=True, exist_ok=True)
      with path.open('xb') as out:
        shutil.copyfileobj(file, out, _CHUNK)
      count += 1
    return count
  except FileExistsError as error:
    name = shown(pathlib.Path(error.filename).name)
    raise DataError(f'{archive.name}: holds {name} twice: get it from another address') from None
  except _DAMAGED as error:
    raise DataError(
      f'{archive.name}: cannot be unpacked ({first_line(error)}): get it from another address'
    ) from None


def _is_zip(archive: pathlib.Path) -> bool:
  with archive.open('rb') as file:
    start = file.read(4)
  if start[:2] == b'PK':
    return True
  if start[:2] != b'\x1f\x8b':
    raise ValueError('it is neither a tar.gz nor a zip file')
  return False


def _checked(name: str) -> pathlib.PurePosixPath:
  path = pathlib.PurePosixPath(name)
  if any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
    raise ValueError('it has a name of extreme length')
  if not path.parts or path.is_absolute() or '..' in path.parts or any(c in name for c in '\\:\0'):
    raise ValueError(f'{shown(name)} leads out of it')
  return path


def _tar(archive: pathlib.Path, most_bytes: int) -> Iterator[tuple[str, BinaryIO]]:
  with (
    gzip.open(archive) as inflated,
    tarfile.open(fileobj=_Bounded(inflated, most_bytes), mode='r:') as tar,
  ):
    for number, member in enumerate(tar):
      if number > _MOST_MEMBERS:
        raise ValueError(f'it has more than {_MOST_MEMBERS} members')
      _checked(member.name)
      if member.isdir():
        continue
      if not member.isreg() or member.issparse():
        raise ValueError(f'{shown(member.name)} is no plain file')
      yield member.name, tar.extractfile(member)
      tar.members = []  # Otherwise it keeps all members in memory.
    while inflated.read(_CHUNK):  # gzip verifies its checksum at the end.
      if inflated.tell() > most_bytes:
        raise ValueError(f'it inflates to more than {most_bytes} bytes')


def _zip(archive: pathlib.Path, most_bytes: int) -> Iterator[tuple[str, BinaryIO]]:
  with zipfile.ZipFile(archive) as opened:
    members = opened.infolist()
    if sum(member.file_size for member in members) > most_bytes:
      raise ValueError(f'it inflates to more than {most_bytes} bytes')
    for member in members:
      _checked(member.filename)
      if member.is_dir():
        continue
      if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ValueError(f'{shown(member.filename)} is no plain file')
      with opened.open(member) as file:
        yield member.filename, file


class _Bounded:
  """A file that limits the position and the size of reads.

  Headers of a tar file are read in one piece, whatever size they claim.
  """

  def __init__(self, file: BinaryIO, most_bytes: int):
    self._file = file
    self._most_bytes = most_bytes

  def tell(self) -> int:
    return self._file.tell()

  def seek(self, position: int, whence: int = 0) -> int:
    self._check(position)
    return self._file.seek(position, whence)

  def read(self, size: int = -1) -> bytes:
    if not 0 <= size <= _CHUNK:
      raise ValueError('it has a header of extreme length')
    self._check(self._file.tell() + size)
    return self._file.read(size)

  def _check(self, position: int) -> None:
    if position > self._most_bytes:
      raise ValueError(f'it inflates to more than {self._most_bytes} bytes')
