"""One run at a time in a stage's folder."""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import logging
import os
import pathlib
import socket
import threading
import time
from typing import TextIO
import uuid

import jax
import tensorstore

from step_jax import files
from step_jax.errors import RunError, shown
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

FILE = '.lock'
# In a bucket: seconds from one sign of life to the next, and without one until a holder counts as
# dead.
BEAT = 10.0
PATIENCE = 60.0
# Of a lock that are looked at for its holder's name.
_NAME_BYTES = 200


@contextlib.contextmanager
def hold(folder: files.Path) -> Iterator[Callable[[], None]]:
  """Makes a folder and keeps other runs out of it; leaves no empty folder behind.

  The lock is the operating system's (`flock` on `.lock`, which names the holder): it is gone with
  the process, however that ends. In a bucket it is an object that its holder writes anew every
  `BEAT` seconds; who finds one that stays as it is for `PATIENCE` seconds takes it over. Host 0
  alone takes it, for all.

  Yields:
    To be called before anything is written: raises a RunError where another run has taken over,
    as it may while this one stood still, and does nothing else.

  Raises:
    RunError: another process holds it, on this or, where the file system tells, another machine.
  """
  check = lambda: None
  refusal = None
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      try:
        if files.in_bucket(folder):
          check = stack.enter_context(_hold_object(folder))
        else:
          stack.enter_context(_hold(folder))
      except (RunError, OSError) as error:
        refusal = error
    if not mesh_lib.all_hosts(refusal is None):
      raise refusal or RunError(f'{folder}: host 0 cannot train here; its message says why')
    yield check


@contextlib.contextmanager
def _hold(folder: pathlib.Path) -> Iterator[None]:
  new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  file = _lock(folder / FILE)
  try:
    yield
  finally:
    # Whoever waits for this very file sees that it is gone, and takes a new one.
    (folder / FILE).unlink(missing_ok=True)
    file.close()
    with contextlib.suppress(OSError):  # They are in use.
      for path in new_folders:
        path.rmdir()


def _lock(path: pathlib.Path) -> TextIO:
  while True:
    file = path.open('a+')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = _named(os.pread(file.fileno(), _NAME_BYTES, 0))
      file.close()
      raise RunError(
        f'{path.parent}: is being trained by {holder}: wait until that has ended, or stop it'
      ) from None
    except OSError as error:
      log.warning('%s: cannot be locked here (%s): start no second run in it', path, error.strerror)
    if _is_at(file, path):
      file.truncate(0)
      file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
      file.flush()
      return file
    file.close()


def _is_at(file: TextIO, path: pathlib.Path) -> bool:
  """Whether the open file is still that of the path; its last holder may have removed it."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False


@contextlib.contextmanager
def _hold_object(folder: files.Path) -> Iterator[Callable[[], None]]:
  lock = _ObjectLock(folder)
  lock.take()
  over = threading.Event()
  beating = threading.Thread(target=lock.beat_until, args=(over,), daemon=True)
  beating.start()
  try:
    yield lock.check
  finally:
    over.set()
    beating.join()
    lock.release()


class _ObjectLock:
  """The object `.lock` of a bucket's folder.

  Every write names the generation that it replaces, which the bucket compares: of two who write at
  a time one is refused. Clocks are not compared: a holder is dead when its object stays as it is.
  """

  def __init__(self, folder: files.Path):
    self._folder = folder
    self._holder = f'process {os.getpid()} on {socket.gethostname()}'
    # Unlike any other's, so that an answer that was lost can be told from a refusal.
    self._token = uuid.uuid4().hex
    self._beats = 0
    self._taken_by = ''
    self._generation = b''
    with files.bucket_errors(folder):
      self._store = tensorstore.KvStore.open(f'{folder}/').result()

  def take(self) -> None:
    """Raises a RunError if another run holds it, or is quicker."""
    with files.bucket_errors(self._folder):
      holder = self._store.read(FILE).result()
      if holder.state == 'value':
        log.info(
          '%s: is held by %s: looking for %g s whether that is alive',
          self._folder, _named(holder.value), PATIENCE,
        )  # fmt: skip
        holder = self._watched(holder)
      if holder is not None and self._write(holder.stamp.generation):
        return
      holder = self._store.read(FILE).result()
    raise RunError(
      f'{self._folder}: is being trained by {_named(holder.value)}: wait until that has ended, or '
      'stop it'
    )

  def _watched(self, first):
    """What is there after `PATIENCE`, if it is as it was or gone; None if somebody is alive."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
      time.sleep(min(BEAT, PATIENCE) / 5)
      holder = self._store.read(FILE).result()
      if holder.state != 'value':
        return holder
      if holder.stamp.generation != first.stamp.generation:
        return None
    log.warning('%s: %s is dead: going on in its place', self._folder, _named(first.value))
    return first

  def _write(self, replaced: bytes) -> bool:
    """Whether the object was still the one of that generation, and is ours now."""
    self._beats += 1
    content = f'{self._holder}\n{self._token}\n{self._beats}\n'.encode()
    written = self._store.write(FILE, content, if_equal=replaced).result()
    if not written.generation:
      holder = self._store.read(FILE).result()
      if self._token.encode() not in holder.value:
        self._taken_by = _named(holder.value)
        return False
      written = holder.stamp
    self._generation = written.generation
    return True

  def beat_until(self, over: threading.Event) -> None:
    """Writes the object anew again and again; ends when it has become another's."""
    while not over.wait(BEAT):
      try:
        if not self._write(self._generation):
          return
      except Exception as error:  # The next beat may get through.
        log.warning('%s: the lock cannot be refreshed (%s)', self._folder, str(error)[:150])

  def check(self) -> None:
    if self._taken_by:
      raise RunError(
        f'{self._folder}: {self._taken_by} took over, as this run gave no sign of life for '
        f'{PATIENCE:g} s: it ends here, and saves nothing more'
      )

  def release(self) -> None:
    """Removes the object, unless it is another's."""
    if not self._taken_by:
      with contextlib.suppress(Exception):  # Without it the next one waits a little.
        self._store.write(FILE, None, if_equal=self._generation).result()


def _named(content: bytes) -> str:
  """The holder, whom the first line of a lock names."""
  lines = content[:_NAME_BYTES].decode(errors='replace').splitlines()
  return shown(lines[0].strip()) if lines and lines[0].strip() else 'another process'
