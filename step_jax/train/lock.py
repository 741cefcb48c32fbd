"""Lock for the folder of a stage: only one run at a time."""

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
# In a bucket: seconds between updates of the lock, and seconds without an update after which its
# holder counts as dead.
BEAT = 10.0
PATIENCE = 60.0
# Bytes of a lock that are read for the name of its holder.
_NAME_BYTES = 200


@contextlib.contextmanager
def hold(folder: files.Path) -> Iterator[Callable[[], None]]:
  """Creates a folder and locks it against other runs; removes it at the end if it is empty.

  The lock is a lock of the operating system (`flock` on `.lock`, which names the holder). It is
  released when the process ends for any reason. In a bucket, it is an object that its holder
  rewrites every `BEAT` seconds; a lock that does not change for `PATIENCE` seconds is taken over.
  Host 0 takes the lock for all hosts.

  Yields:
    A function to call before anything is written. It raises a RunError if another run has taken
    over the lock, which can happen if this run was suspended.

  Raises:
    RunError: another process holds the lock, on this machine or, if the file system supports it, on
      another one.
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
    # Processes that wait for this file notice that it is gone, and create a new one.
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
  """Whether the open file is still at the path; its last holder may have removed it."""
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
  """The object `.lock` in a folder of a bucket.

  Every write names the generation that it replaces, and the bucket compares it, so one of two
  simultaneous writes is refused. Clocks are not compared: a holder counts as dead if its object
  does not change.
  """

  def __init__(self, folder: files.Path):
    self._folder = folder
    self._holder = f'process {os.getpid()} on {socket.gethostname()}'
    # Unique, to distinguish a lost response from a refusal.
    self._token = uuid.uuid4().hex
    self._beats = 0
    self._taken_by = ''
    self._generation = b''
    with files.bucket_errors(folder):
      self._store = tensorstore.KvStore.open(f'{folder}/').result()

  def take(self) -> None:
    """Takes the lock; raises a RunError if another run holds it or is faster."""
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
    """The lock after `PATIENCE` seconds if it is unchanged or gone; None if it has changed."""
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
    """Replaces the object of that generation; returns whether it is ours now."""
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
    """Rewrites the object regularly; returns when another run has taken it."""
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
    """Removes the object, unless another run has taken it."""
    if not self._taken_by:
      with contextlib.suppress(Exception):  # If this fails, the next run only has to wait.
        self._store.write(FILE, None, if_equal=self._generation).result()


def _named(content: bytes) -> str:
  """The holder, named in the first line of a lock."""
  lines = content[:_NAME_BYTES].decode(errors='replace').splitlines()
  return shown(lines[0].strip()) if lines and lines[0].strip() else 'another process'
