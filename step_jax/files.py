"""Where a run's files lie: a folder of this machine, or `gs://BUCKET/FOLDER` in Cloud Storage.

Code names both by paths that have pathlib's methods, and writes through here. What differs: on a
disk a file appears whole by a rename; in a bucket an object is written whole or not at all, nothing
can be appended to, renamed as a whole folder, locked or mapped to memory, and there are no folders.
"""

from collections.abc import Iterator, Mapping
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import io
import os
import pathlib
import posixpath
import re
import shutil
import tempfile
from typing import BinaryIO

from etils import epath
import numpy as np

from step_jax import places
from step_jax.errors import RunError, first_line, shown

# Of this machine, or in a bucket.
Path = pathlib.Path | epath.Path

_ADDRESS = re.compile(r'(\w[\w+.-]+):/')
_BUCKET = 'gs'
# What etils reads and writes buckets with.
_LIBRARIES = ('fsspec', 'gcsfs')


def path(text: str | os.PathLike) -> Path:
  """The path that a user means: `pathlib.Path`, or `etils.epath.Path` for `gs://…`.

  Raises:
    RunError: an address of another kind, without a bucket, or without the libraries for it.
  """
  text = os.fspath(text)
  match = _ADDRESS.match(text)
  if not match:
    return places.expand(text)
  if match[1] == 'hf':
    raise RunError(f'{text}: exports on the hub are read-only: give a folder')
  if match[1] != _BUCKET:
    raise RunError(f'{text}: only folders and gs:// buckets can be used: mount it as a folder')
  # `pathlib.Path('gs://…')` has lost a slash.
  rest = posixpath.normpath(text[match.end() :].lstrip('/')).lstrip('.')
  if not rest:
    raise RunError(f'{text}: names no bucket: give gs://BUCKET/FOLDER')
  _prepare_libraries(text)
  return epath.Path(f'{_BUCKET}://{rest}')


def in_bucket(path: Path) -> bool:
  """Whether a path (of `path` above) is in a bucket."""
  return os.fspath(path).startswith(f'{_BUCKET}://')


def join(folder: Path, name: str) -> Path:
  """`folder/name` without `..`; `name` alone where it is a path of its own."""
  if not in_bucket(folder) and not _ADDRESS.match(name):
    # A name may lead out of a folder that is not there yet (`../other/pretrain`).
    return pathlib.Path(os.path.normpath(folder / name))
  if _ADDRESS.match(name) or os.path.isabs(name):
    return path(name)
  return path(f'{folder}/{name}')


def absolute(path: Path) -> Path:
  """The path from the root."""
  return path if in_bucket(path) else path.absolute()


def resolve(path: Path) -> Path:
  """The path from the root, without links: its `name` is that of the folder itself."""
  return path if in_bucket(path) else path.resolve()


def make_folder(path: Path) -> None:
  """Makes a folder, and those above it; in a bucket there is nothing to make."""
  if not in_bucket(path):
    path.mkdir(parents=True, exist_ok=True)


def short_name(name: str, most: int = 100) -> str:
  """A name of at most `most` bytes: the name itself, or its start and a digest of all of it.

  File systems allow 255 bytes. Names that are derived from those that users chose, such as
  temporary files, need room for what is added.
  """
  encoded = os.fsencode(name)
  if len(encoded) <= most:
    return name
  digest = hashlib.sha256(encoded).hexdigest()[:16]
  return f'{encoded[: most - 17].decode(errors="ignore")}-{digest}'


def write_bytes(path: Path, data: bytes, sync: bool = False) -> None:
  """Writes a file, which appears whole or not at all, in place of the one before.

  Args:
    path: the file.
    data: its content.
    sync: whether to force it to the disk before it takes its place.

  Raises:
    RunError: a bucket refuses it.
    OSError: a disk does.
  """
  if in_bucket(path):
    with bucket_errors(path):
      path.write_bytes(data)
    return
  part = path.with_name(f'.{short_name(path.name, 200)}.part')
  with _alone(part) as file:
    file.write(data)
    file.flush()
    if sync:
      os.fsync(file.fileno())
    part.replace(path)


def _alone(part: pathlib.Path) -> BinaryIO:
  """Opens a file that is to be written and renamed, empty; others who want it wait until then.

  Who was killed leaves a file of that name, which is taken over; a link of that name is not.
  """
  while True:
    try:
      file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), 'r+b')
    except OSError as error:
      if error.errno != errno.ELOOP:
        raise
      part.unlink(missing_ok=True)
      continue
    with contextlib.suppress(OSError):  # Some file systems have no locks.
      fcntl.flock(file, fcntl.LOCK_EX)
    status = os.fstat(file.fileno())
    try:
      if status.st_nlink == 1 and os.path.samestat(status, part.lstat()):
        file.truncate(0)
        return file
    except FileNotFoundError:  # Renamed by the one who was waited for.
      pass
    file.close()
    if status.st_nlink > 1:
      part.unlink(missing_ok=True)


def write_text(path: Path, text: str, sync: bool = False) -> None:
  """As `write_bytes`, in UTF-8."""
  write_bytes(path, text.encode(), sync)


def write_array(path: Path, array: np.ndarray) -> None:
  """As `write_bytes`, an array as npy file."""
  buffer = io.BytesIO()
  np.save(buffer, array)
  write_bytes(path, buffer.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
  """As `write_bytes`, arrays by name as npz file."""
  buffer = io.BytesIO()
  (np.savez_compressed if compress else np.savez)(buffer, **arrays)
  write_bytes(path, buffer.getvalue())


def readable(path: Path) -> pathlib.Path | BinaryIO:
  """What libraries read a file by: its path, or, from a bucket, its content in memory.

  Raises:
    FileNotFoundError: there is none in the bucket.
    RunError: the bucket cannot be read.
  """
  if not in_bucket(path):
    return path
  with bucket_errors(path):
    return io.BytesIO(path.read_bytes())


def remove_folder(path: Path) -> None:
  """Removes a folder and all below it; also where it is not there."""
  if in_bucket(path):
    with bucket_errors(path):
      path.rmtree(missing_ok=True)
  else:
    shutil.rmtree(path, ignore_errors=True)


def move_folder(path: Path, to: Path) -> None:
  """Moves a folder, in place of what is there; in a bucket object by object."""
  remove_folder(to)
  if not in_bucket(path):
    path.replace(to)
    return
  import fsspec

  with bucket_errors(path):
    for file in listing(path):
      name = file.relative_to(path).as_posix()
      fsspec.filesystem('gcs').cp_file(os.fspath(file), os.fspath(to / name))
  remove_folder(path)


def scratch(path: Path) -> pathlib.Path:
  """A folder of this machine for what is made on the way to `path` and mapped to memory.

  `path` itself on a disk; else a folder of the cache, the same for the same path, so that what was
  interrupted is found again on this machine.
  """
  if not in_bucket(path):
    return path
  name = hashlib.sha256(os.fspath(path).encode()).hexdigest()[:16]
  return places.cache() / 'scratch' / f'{short_name(path.name.lstrip("."))}-{name}'


def listing(folder: epath.Path) -> Mapping[epath.Path, str]:
  """All objects below a folder of a bucket, each with what changes when its content does.

  One request lists some thousand objects, and none is asked for by itself.
  """
  import fsspec

  with bucket_errors(folder):
    objects = fsspec.filesystem('gcs').find(os.fspath(folder), detail=True)
  return {
    epath.Path(f'{_BUCKET}://{name}'): f'{about["size"]}\0{about["generation"]}'
    for name, about in objects.items()
  }


@contextlib.contextmanager
def temporary_folder(beside: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
  """A folder `.NAME-….part` in `beside`, removed at the end.

  Folders of this kind that killed processes left in `beside` are removed first. A process holds a
  lock on its folder while it runs, by which the others know that it is in use; where folders cannot
  be locked, nothing is removed.
  """
  for left in beside.glob('.*-????????.part'):
    with folder_lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
      if locked:
        shutil.rmtree(left, ignore_errors=True)
  while True:
    with tempfile.TemporaryDirectory(
      prefix=f'.{short_name(name)}-', suffix='.part', dir=beside, ignore_cleanup_errors=True
    ) as folder:
      with folder_lock(pathlib.Path(folder), fcntl.LOCK_SH):
        # Another process may have taken it for a leftover before it was locked.
        if os.path.isdir(folder):
          yield pathlib.Path(folder)
          return


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path, kind: int) -> Iterator[bool]:
  """Locks a folder by a flag of `fcntl.flock`, and yields whether that worked."""
  try:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
  except OSError:
    yield False
    return
  try:
    try:
      fcntl.flock(descriptor, kind)
      locked = True
    except OSError:
      locked = False
    yield locked
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def fetched(folder: epath.Path, beside: pathlib.Path) -> Iterator[pathlib.Path]:
  """A copy of a bucket's folder, on this machine below `beside`; what is not moved goes again.

  Raises:
    RunError: the bucket cannot be read, or the name of an object leads out of the folder.
  """
  beside.mkdir(parents=True, exist_ok=True)
  with temporary_folder(beside, folder.name) as part:
    here = part / folder.name
    for file in listing(folder):
      name = file.relative_to(folder)
      if '..' in name.parts:  # Objects may be called anything.
        raise RunError(f'{shown(str(file))}: leads out of {folder}: remove it')
      to = here / name.as_posix()
      with bucket_errors(file):
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(file.read_bytes())
    yield here


def upload_folder(here: pathlib.Path, folder: epath.Path, last: str) -> None:
  """Copies a folder of this machine to a bucket; the file `last`, by which it is known, last."""
  files = [file for file in here.rglob('*') if file.is_file()]
  for file in sorted(files, key=lambda file: (file.name == last, file)):
    write_bytes(folder / file.relative_to(here).as_posix(), file.read_bytes())


@contextlib.contextmanager
def bucket_errors(path: Path) -> Iterator[None]:
  """Says in one line what a bucket refuses; a missing object stays a FileNotFoundError.

  Raises:
    RunError: the request failed for good, after the libraries' own attempts.
  """
  try:
    yield
  except RunError:
    raise
  except FileNotFoundError:
    if _bucket_exists(path):
      raise
    raise RunError(f'{shown(str(path))}: there is no such bucket: give the name of one') from None
  # The errors of gcsfs, aiohttp and google.auth share no base class.
  except Exception as error:
    raise RunError(
      f'{shown(str(path))}: the bucket cannot be used ({first_line(error)}): earlier files are '
      'intact; check its name and the permissions of this account (Storage Object Admin), then '
      're-run the command'
    ) from error


def _bucket_exists(path: Path) -> bool:
  try:
    return epath.Path(f'{_BUCKET}://{os.fspath(path).split("/")[2]}').exists()
  except Exception:  # It may not be looked at; then what was not found is what was asked for.
    return True


def _prepare_libraries(text: str) -> None:
  missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
  if missing:
    raise RunError(
      f'{text}: buckets need {" and ".join(missing)}: '
      "pip install -e '.[gcs]', or mount the bucket and give its folder"
    )
  # One way to a bucket, with TensorFlow installed or not.
  os.environ.setdefault('EPATH_USE_TF', 'false')
  import fsspec

  # Other hosts, and tensorstore, write there too: what was listed before may not be true any more.
  fsspec.config.conf.setdefault('gcs', {}).setdefault('use_listings_cache', False)
