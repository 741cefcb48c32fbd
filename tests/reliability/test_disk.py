"""A full disk or a read-only folder gives a one-line error, and earlier files are intact."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import toy

from step_jax import main
from step_jax.errors import RunError
from step_jax.train import checkpoint, writers

ROOT = pathlib.Path(__file__).parents[2]

# Runs in a mount namespace, where unprivileged mounts are allowed, on a separate disk. The disk is
# read-only, or the hook fills it after some steps.
_RUN = """
import pathlib, sys
sys.path[:0] = ['tests', 'tests/reliability']
from step_jax import main
import toy
disk, fill_at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def hook(step):
  if step == fill_at:
    with open(disk / 'others', 'wb') as file:
      try:
        while file.write(bytes(4096)):
          file.flush()
      except OSError:
        pass
if fill_at:
  toy.hook = hook
status = main.guarded(lambda: toy.train(disk))
if fill_at:
  toy.hook = lambda step: None
  import shutil
  shutil.copytree(disk, sys.argv[3])
sys.exit(status)
"""


def in_namespace(script: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    ['unshare', '--map-root-user', '--mount', 'sh', '-euc', script, 'sh', *arguments],
    capture_output=True, text=True, cwd=ROOT, timeout=240,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
  )  # fmt: skip


@pytest.fixture(scope='module')
def disk(tmp_path_factory):
  folder = tmp_path_factory.mktemp('disk')
  if not shutil.which('unshare'):
    pytest.skip('needs unshare(1)')
  tried = in_namespace('mount -t tmpfs -o size=1m tmpfs "$1"', str(folder))
  if tried.returncode:
    pytest.skip(f'no file system can be mounted here: {tried.stderr.strip()}')
  return folder


def only_line(stderr: str) -> str:
  lines = [line for line in stderr.splitlines() if line.startswith('step-jax: ')]
  assert len(lines) == 1 and stderr.strip().endswith(lines[0]), stderr[-3000:]
  assert 'Traceback' not in stderr, stderr[-3000:]
  return lines[0]


def test_a_disk_that_becomes_full_in_training(disk, tmp_path, whole):
  saved = tmp_path / 'saved'
  done = in_namespace(
    'mount -t tmpfs -o size=400k tmpfs "$1"; exec "$2" -c "$3" "$1" 5 "$4"',
    str(disk), sys.executable, _RUN, str(saved),
  )  # fmt: skip
  assert done.returncode == 2, done.stderr[-3000:]
  assert 'No space left on device' in only_line(done.stderr)
  (saved / 'others').unlink()
  step, _ = toy.final(saved / 'toy')
  # The hook runs ahead of the steps, and checkpoints are written after them.
  assert step in (2, 4)
  # With free space, the same command ends as if nothing had happened.
  assert np.array_equal(toy.final(toy.train(saved))[1], whole)


def test_abandoned_work_of_orbax_is_silent(tmp_path):
  """Threads of the array store may report to a closed event loop much later."""
  program = """
import asyncio, pathlib, sys
from step_jax.train import checkpoint
for _ in range(2):
  checkpoint.Checkpoints(pathlib.Path(sys.argv[1])).close()
loop = asyncio.new_event_loop()
loop.close()
class Late:
  def __del__(self):
    loop.call_soon_threadsafe(print)
class Other:
  def __del__(self):
    raise RuntimeError('of something else')
Late(), Other()
"""
  done = subprocess.run(
    [sys.executable, '-c', program, str(tmp_path)], capture_output=True, text=True, check=True
  )
  assert done.stderr.count('Traceback') == 1 and 'of something else' in done.stderr


def test_a_read_only_folder(disk):
  done = in_namespace(
    'mount -t tmpfs -o ro tmpfs "$1"; exec "$2" -c "$3" "$1" 0', str(disk), sys.executable, _RUN
  )
  assert done.returncode == 2
  assert 'Read-only file system' in only_line(done.stderr) and str(disk) in only_line(done.stderr)


def fail_from(number):
  """Makes `os.fsync` fail from now on, as with an exceeded quota."""
  calls = []
  fsync = os.fsync

  def failing(fd):
    calls.append(fd)
    if len(calls) >= number:
      raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    return fsync(fd)

  return failing


def test_metrics_that_cannot_be_written_end_training(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(os, 'fsync', fail_from(8))
  assert main.guarded(lambda: toy.train(tmp_path)) == 2
  line = only_line(capfd.readouterr().err)
  assert 'metrics cannot be written' in line and os.strerror(errno.EDQUOT) in line
  monkeypatch.undo()
  assert toy.final(tmp_path / 'toy')[0] in (2, 4, 6)
  assert toy.final(toy.train(tmp_path))[0] == 10


def test_a_checkpoint_that_cannot_be_written_ends_training(tmp_path, monkeypatch):
  """Orbax reports it at the next save; earlier checkpoints remain."""
  finalize = checkpoint._Manager._finalize

  def fail(self, step, *args):
    if step == 6:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return finalize(self, step, *args)

  monkeypatch.setattr(checkpoint._Manager, '_finalize', fail)
  # Step 6 is complete if orbax's other thread has renamed it before this one fails.
  told = 'could not be written .No space left on device.*step [46] is intact'
  with pytest.raises(RunError, match=told) as e:
    toy.train(tmp_path)
  assert '\n' not in str(e.value)


def test_events_are_written_by_the_calling_thread(tmp_path):
  """tensorboardX's own writer uses a queue that blocks after its thread has failed."""
  writer = writers.MetricWriter(tmp_path)

  def fail(event):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  writer._events._writer.write_event = fail
  for _ in range(30):
    with pytest.raises(RunError, match='No space left on device'):
      writer.write_images(1, {'picture': np.zeros((64, 64, 3), np.uint8)})


def test_events_can_be_read(tmp_path):
  """Every step is present once, also after resuming from an earlier step."""
  for start, steps in ((0, range(1, 6)), (3, range(4, 7))):
    writer = writers.MetricWriter(tmp_path, start)
    for step in steps:
      writer.write_scalars(step, {'loss': step / 10})
    writer.close()
  files = sorted((tmp_path / 'tensorboard').iterdir())
  found = [events(path) for path in files]
  assert len(files) == 2
  assert sorted(sum((steps for _, steps in found), [])) == [1, 2, 3, 4, 4, 5, 5, 6]
  # The steps from which TensorBoard discards later events.
  assert sorted(starts[0] for starts, _ in found) == [1, 4]
  assert [json.loads(line)['step'] for line in (tmp_path / 'metrics.jsonl').open()] == [
    *range(1, 7)
  ]


def events(path):
  """Steps of session starts and scalars in a record file: length, CRC, content, CRC."""
  import struct

  from tensorboardX.proto.event_pb2 import Event, SessionLog

  content, starts, steps = path.read_bytes(), [], []
  while content:
    (length,) = struct.unpack('<Q', content[:8])
    event = Event.FromString(content[12 : 12 + length])
    content = content[16 + length :]
    if event.session_log.status == SessionLog.START:
      starts.append(event.step)
    steps += [event.step] * len(event.summary.value)
  return starts, steps
