"""One run at a time per stage folder; a lock of a dead process does not block others."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
import toy

from step_jax.errors import RunError
from step_jax.train import lock

ROOT = pathlib.Path(__file__).parents[2]
_HOLD = """
import pathlib, sys, time
from step_jax.train import lock
with lock.hold(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(tmp_path / 'toy')],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
  )  # fmt: skip
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.communicate()


def test_the_second_refuses_until_the_first_is_gone(tmp_path, holder):
  told = f'is being trained by process {holder.pid} on {socket.gethostname()}: wait'
  for _ in range(2):
    with pytest.raises(RunError, match=told):
      toy.train(tmp_path)
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / 'toy/.lock').is_file()
  assert toy.final(toy.train(tmp_path))[0] == 10
  assert not (tmp_path / 'toy/.lock').exists()


def test_the_lock_is_released_when_training_fails(tmp_path, monkeypatch):
  def fail(step):
    if step == 5:
      raise RunError('a fault')

  monkeypatch.setattr(toy, 'hook', fail)
  with pytest.raises(RunError, match='a fault'):
    toy.train(tmp_path)
  with lock.hold(tmp_path / 'toy'), pytest.raises(RunError, match=f'process {os.getpid()}'):
    toy.train(tmp_path)


def test_no_empty_folder_is_left(tmp_path):
  with pytest.raises(KeyError), lock.hold(tmp_path / 'run/toy'):
    raise KeyError
  assert not (tmp_path / 'run').exists()
  with lock.hold(tmp_path / 'run/toy'):
    (tmp_path / 'run/toy/found').touch()
  assert [path.name for path in (tmp_path / 'run/toy').iterdir()] == ['found']


def test_a_file_that_its_last_holder_removes_is_not_taken_for_the_lock(tmp_path, monkeypatch):
  """A file that was opened before and locked after its removal must not count as the lock."""
  opened = pathlib.Path.open
  raced = []

  def remove_after_open(self, *args, **kwargs):
    file = opened(self, *args, **kwargs)
    if self.name == lock.FILE and not raced:
      raced.append(self)
      self.unlink()
    return file

  monkeypatch.setattr(pathlib.Path, 'open', remove_after_open)
  with lock.hold(tmp_path / 'toy'):
    assert raced and (tmp_path / 'toy/.lock').is_file()
    with pytest.raises(RunError, match='is being trained by'), lock.hold(tmp_path / 'toy'):
      pass


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, caplog):
  def refuse(*args):
    raise OSError(95, os.strerror(95))

  monkeypatch.setattr(lock.fcntl, 'flock', refuse)
  assert toy.final(toy.train(tmp_path))[0] == 10
  assert 'cannot be locked here' in caplog.text
