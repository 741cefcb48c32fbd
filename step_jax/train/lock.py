"""One run at a time in a stage's folder."""

from collections.abc import Iterator
import contextlib
import fcntl
import logging
import os
import pathlib
import socket
from typing import TextIO

import jax

from step_jax.errors import RunError
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

FILE = '.lock'


@contextlib.contextmanager
def hold(folder: pathlib.Path) -> Iterator[None]:
  """Makes a folder and keeps other runs out of it; leaves no empty folder behind.

  The lock is the operating system's (`flock` on `.lock`, which names the holder): it is gone with
  the process, however that ends. Host 0 alone takes it, for all.

  Raises:
    RunError: another process holds it, on this or, where the file system tells, another machine.
  """
  refusal = None
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      try:
        stack.enter_context(_hold(folder))
      except (RunError, OSError) as error:
        refusal = error
    if not mesh_lib.all_hosts(refusal is None):
      raise refusal or RunError(f'{folder}: host 0 cannot train here; its message says why')
    yield


@contextlib.contextmanager
def _hold(folder: pathlib.Path) -> Iterator[None]:
  made = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  file = _lock(folder / FILE)
  try:
    yield
  finally:
    # Whoever waits for this very file sees that it is gone, and takes a new one.
    (folder / FILE).unlink(missing_ok=True)
    file.close()
    with contextlib.suppress(OSError):  # They are in use.
      for path in made:
        path.rmdir()


def _lock(path: pathlib.Path) -> TextIO:
  while True:
    file = path.open('a+')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      holder = file.read().strip() or 'another process'
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
