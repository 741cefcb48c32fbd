"""Files in a local folder, or in `gs://BUCKET/FOLDER` in Cloud Storage.

Both are addressed by paths with pathlib's methods and written with functions of this module. On a
disk, files are written atomically by renaming. In a bucket, objects are written atomically, but
nothing can be appended, locked or memory-mapped, folders cannot be renamed, and there are no real
folders.
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

# A local path, or a path in a bucket.
Path = pathlib.Path | epath.Path

_ADDRESS = re.compile(r'(\w[\w+.-]+):/')
_BUCKET = 'gs'
# Libraries that etils needs for buckets.
_LIBRARIES = ('fsspec', 'gcsfs')


def path(text: str | os.PathLike) -> Path:
  """Parses a path: `pathlib.Path`, or `etils.epath.Path` for `gs://…`.

  Raises:
    RunError: the address is of another kind or has no bucket, or libraries for it are missing.
  """
  text = os.fspath(text)
  if text.startswith('shipped:'):
    raise RunError(f'{text}: runs that come with the package are read-only: give a folder')
  match = _ADDRESS.match(text)
  if not match:
    return places.expand(text)
  if match[1] == 'hf':
    raise RunError(f'{text}: exports on the hub are read-only: give a folder')
  if match[1] != _BUCKET:
    raise RunError(f'{text}: only folders and gs:// buckets can be used: mount it as a folder')
  # `pathlib.Path('gs://…')` removes a slash.
  rest = posixpath.normpath(text[match.end() :].lstrip('/')).lstrip('.')
  if not rest:
    raise RunError(f'{text}: names no bucket: give gs://BUCKET/FOLDER')
  _prepare_libraries(text)
  return epath.Path(f'{_BUCKET}://{rest}')


def in_bucket(path: Path) -> bool:
  """Whether a path (from `path`) is in a bucket."""
  return os.fspath(path).startswith(f'{_BUCKET}://')


def join(folder: Path, name: str) -> Path:
  """`folder/name` without `..`; only `name` if it is an absolute path."""
  if not in_bucket(folder) and not _ADDRESS.match(name):
    # A name may lead out of a folder that does not exist yet (`../other/pretrain`).
    return pathlib.Path(os.path.normpath(folder / name))
  if _ADDRESS.match(name) or os.path.isabs(name):
    return path(name)
  return path(f'{folder}/{name}')


def absolute(path: Path) -> Path:
  """The absolute path."""
  return path if in_bucket(path) else path.absolute()


def resolve(path: Path) -> Path:
  """The absolute path without links, whose `name` is that of the folder itself."""
  return path if in_bucket(path) else path.resolve()


def make_folder(path: Path) -> None:
  """Creates a folder and its parents; does nothing for buckets."""
  if not in_bucket(path):
    path.mkdir(parents=True, exist_ok=True)


def short_name(name: str, most: int = 100) -> str:
  """A name of at most `most` bytes: the name itself, or its start and a digest.

  File systems allow 255 bytes. Names derived from user-defined names, such as those of temporary
  files, need room for additions.
  """
  encoded = os.fsencode(name)
  if len(encoded) <= most:
    return name
  digest = hashlib.sha256(encoded).hexdigest()[:16]
  return f'{encoded[: most - 17].decode(errors="ignore")}-{digest}'


def write_bytes(path: Path, data: bytes, sync: bool = False) -> None:
  """Writes a file atomically, replacing an existing one.

  Args:
    path: the file.
    data: its content.
    sync: whether to sync it to disk before renaming.

  Raises:
    RunError: writing to a bucket failed.
    OSError: writing to a disk failed.
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
  """Opens an empty temporary file that will be renamed, and locks it against other processes.

  A temporary file left by a killed process is reused; a link with that name is removed.
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
    except FileNotFoundError:  # Renamed by the process that held the lock.
      pass
    file.close()
    if status.st_nlink > 1:
      part.unlink(missing_ok=True)


def write_text(path: Path, text: str, sync: bool = False) -> None:
  """Writes text in UTF-8; see `write_bytes`."""
  write_bytes(path, text.encode(), sync)


def write_array(path: Path, array: np.ndarray) -> None:
  """Writes an array as an npy file; see `write_bytes`."""
  buffer = io.BytesIO()
  np.save(buffer, array)
  write_bytes(path, buffer.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
  """Writes arrays by name as an npz file; see `write_bytes`."""
  buffer = io.BytesIO()
  (np.savez_compressed if compress else np.savez)(buffer, **arrays)
  write_bytes(path, buffer.getvalue())


def readable(path: Path) -> pathlib.Path | BinaryIO:
  """An argument for libraries that read files: the path, or for buckets the content in memory.

  Raises:
    FileNotFoundError: there is no such object in the bucket.
    RunError: the bucket cannot be read.
  """
  if not in_bucket(path):
    return path
  with bucket_errors(path):
    return io.BytesIO(path.read_bytes())


def remove_folder(path: Path) -> None:
  """Removes a folder with its content, if it exists."""
  if in_bucket(path):
    with bucket_errors(path):
      path.rmtree(missing_ok=True)
  else:
    shutil.rmtree(path, ignore_errors=True)


def move_folder(path: Path, to: Path) -> None:
  """Moves a folder, replacing an existing one; in a bucket, object by object."""
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
  """A local folder for memory-mapped intermediate files of `path`.

  It is `path` itself on a disk. For a bucket, it is a folder of the cache that depends only on the
  path, so that interrupted work can be resumed on this machine.
  """
  if not in_bucket(path):
    return path
  name = hashlib.sha256(os.fspath(path).encode()).hexdigest()[:16]
  return places.cache() / 'scratch' / f'{short_name(path.name.lstrip("."))}-{name}'


def listing(folder: epath.Path) -> Mapping[epath.Path, str]:
  """All objects in a folder of a bucket, each with a text that changes with its content.

  One request lists about a thousand objects; there are no requests for single objects.
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
  """Creates a folder `.NAME-….part` in `beside`, which is removed at the end.

  Folders of this kind left by killed processes are removed first. A process locks its folder while
  it runs, so others know that it is in use. On file systems without locks, nothing is removed.
  """
  for abandoned in beside.glob('.*-????????.part'):
    with folder_lock(abandoned, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
      if locked:
        shutil.rmtree(abandoned, ignore_errors=True)
  while True:
    with tempfile.TemporaryDirectory(
      prefix=f'.{short_name(name)}-', suffix='.part', dir=beside, ignore_cleanup_errors=True
    ) as folder:
      with folder_lock(pathlib.Path(folder), fcntl.LOCK_SH):
        # Another process may have removed it before it was locked.
        if os.path.isdir(folder):
          yield pathlib.Path(folder)
          return


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path, kind: int) -> Iterator[bool]:
  """Locks a folder with a flag of `fcntl.flock`; yields whether this succeeded."""
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
  """Copies a folder of a bucket to a temporary local folder in `beside`.

  Raises:
    RunError: the bucket cannot be read, or the name of an object leads out of the folder.
  """
  beside.mkdir(parents=True, exist_ok=True)
  with temporary_folder(beside, folder.name) as part:
    here = part / folder.name
    for file in listing(folder):
      name = file.relative_to(folder)
      if '..' in name.parts:  # Objects may have any name.
        raise RunError(f'{shown(str(file))}: leads out of {folder}: remove it')
      to = here / name.as_posix()
      with bucket_errors(file):
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(file.read_bytes())
    yield here


def upload_folder(here: pathlib.Path, folder: epath.Path, last: str) -> None:
  """Copies a local folder to a bucket; the file `last`, which identifies the folder, comes last."""
  files = [file for file in here.rglob('*') if file.is_file()]
  for file in sorted(files, key=lambda file: (file.name == last, file)):
    write_bytes(folder / file.relative_to(here).as_posix(), file.read_bytes())


@contextlib.contextmanager
def bucket_errors(path: Path) -> Iterator[None]:
  """Turns errors of a bucket into one-line errors; a missing object stays a FileNotFoundError.

  Raises:
    RunError: the request failed, after the retries of the libraries.
  """
  try:
    yield
  except RunError:
    raise
  except FileNotFoundError:
    if _bucket_exists(path):
      raise
    raise RunError(f'{shown(str(path))}: the bucket does not exist: check its name') from None
  # Errors of gcsfs, aiohttp and google.auth have no common base class.
  except Exception as error:
    raise RunError(
      f'{shown(str(path))}: the bucket cannot be used ({first_line(error)}): earlier files are '
      'intact; check its name and the permissions of this account (Storage Object Admin), then '
      're-run the command'
    ) from error


def _bucket_exists(path: Path) -> bool:
  try:
    return epath.Path(f'{_BUCKET}://{os.fspath(path).split("/")[2]}').exists()
  except Exception:  # No permission to check; the missing object is then the cause.
    return True


def _prepare_libraries(text: str) -> None:
  missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
  if missing:
    raise RunError(
      f'{text}: buckets need {" and ".join(missing)}: '
      "pip install -e '.[gcs]', or mount the bucket and give its folder"
    )
  # The same access to buckets, whether TensorFlow is installed or not.
  os.environ.setdefault('EPATH_USE_TF', 'false')
  import fsspec

  # No cache of listings, because other hosts and tensorstore also write to the bucket.
  fsspec.config.conf.setdefault('gcs', {}).setdefault('use_listings_cache', False)
