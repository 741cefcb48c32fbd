"""Runs with a work directory in a bucket: end to end, killed, damaged and locked."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiny
import toy

from step_jax import files, methods, report
from step_jax.errors import RunError
from step_jax.evaluate import results
from step_jax.infer import files as infer_files
from step_jax.train import checkpoint, lock, writers
from step_jax.train import stage as stage_lib

ROOT = pathlib.Path(__file__).parents[2]
RUN = 'gs://bucket/run'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Final weights of an uninterrupted run on a disk."""
  return toy.final(toy.train(tmp_path_factory.mktemp('whole')))[1]


@pytest.mark.long
def test_a_run_from_end_to_end(bucket, picture_folder, tmp_path):
  for file in picture_folder.rglob('*.png'):
    bucket.put(f'pictures/{file.relative_to(picture_folder).as_posix()}', file.read_bytes())
  tiny.train('pretrain', 'gs://bucket/pictures', RUN)
  tiny.train('translate', 'gs://bucket/pictures', RUN)
  tiny.train('mapper', 'gs://bucket/pictures', RUN, init_from='translate')
  # The same run on a local disk has the same files, except for events, and the same numbers.
  for stage in ('pretrain', 'translate'):
    tiny.train(stage, picture_folder, tmp_path / 'disk')
  rows = [
    [{**row, 'images_per_second': 0} for row in writers.read_metrics(folder)]
    for folder in (files.path(RUN) / 'translate', tmp_path / 'disk/translate')
  ]
  assert rows[0] == rows[1] and rows[0][-1]['step'] == 6
  for stage in ('pretrain', 'translate'):
    here = {
      path.relative_to(tmp_path / 'disk').as_posix()
      for path in (tmp_path / 'disk' / stage).rglob('*')
      if path.is_file() and 'checkpoints' not in path.parts and 'events' not in path.name
    }
    assert here == {
      name.removeprefix('run/')
      for name in bucket.names(f'run/{stage}')
      if 'checkpoints' not in name and 'events' not in name
    }
  log = bucket.read('run/translate/train.log').decode()
  assert 'steps 1 to 6' in log and 'step 6/6' in log
  found = results.evaluate(RUN, groups=('reconstruction',))
  assert results.find(RUN) == found and found['data']['path'] == 'gs://bucket/pictures'
  assert str(report.write(RUN)) == f'{RUN}/report.html'
  page = bucket.read('run/report.html').decode()
  assert 'Samples: styles sampled by the mapper' in page and 'Transfer' in page
  written = infer_files.translate(
    RUN, ['gs://bucket/pictures/val/00.png'], f'{RUN}/out', sample=2, side_by_side=True
  )
  assert [str(path) for path in written] == [f'{RUN}/out/00_00.png', f'{RUN}/out/00_01.png']
  assert bucket.read('run/out/grid.png').startswith(b'\x89PNG')
  assert methods.load(RUN).step == 6


_TRAIN = """
import sys
sys.path[:0] = sys.argv[1:]
import toy
toy.train('gs://bucket/run')
"""


@pytest.mark.parametrize(
  'at',
  [
    'run/toy/checkpoints/8/commit_success.txt',
    pytest.param('run/toy/checkpoints/8/state/', marks=pytest.mark.long),
    pytest.param('run/toy/metrics', marks=pytest.mark.long),
  ],
)
def test_a_killed_run_ends_like_an_uninterrupted_one(at, bucket, whole, impatient):
  """SIGKILL at a request for an object with this name, in the middle of the run."""
  child = None
  started = threading.Event()

  def refuse(method, name, query):
    if method in ('POST', 'PUT') and name.startswith(at):
      checkpoints = {name.split('/')[3] for name in bucket.names('run/toy/checkpoints/')}
      if '6' in checkpoints and started.wait(60) and child.poll() is None:
        child.send_signal(signal.SIGKILL)
        child.wait()
    return 0

  bucket.refuse = refuse
  child = subprocess.Popen(
    [sys.executable, '-c', _TRAIN, str(ROOT / 'tests/reliability')], cwd=ROOT,
    stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  started.set()
  errors = child.communicate(timeout=240)[1]
  assert child.returncode == -signal.SIGKILL, errors[-3000:]
  bucket.refuse = lambda method, name, query: 0
  assert 'run/toy/.lock' in bucket.objects
  folder = toy.train(RUN)
  log = bucket.read('run/toy/train.log').decode()
  assert 'steps 1 to 10' not in log and 'to 10' in log
  step, found = toy.final(folder)
  assert step == 10 and np.array_equal(found, whole)
  assert [row['step'] for row in writers.read_metrics(folder) if 'loss' in row] == [*range(1, 11)]
  assert 'run/toy/.lock' not in bucket.objects


@pytest.mark.parametrize('fault', ['flip', 'remove'])
def test_a_damaged_checkpoint_is_set_aside(fault, bucket, whole, caplog):
  toy.train(RUN, **{'schedule.total_kimg': 6.0})
  prefix = 'run/toy/checkpoints/6/state/'
  name = max(bucket.names(prefix), key=lambda name: len(bucket.read(name)))
  content = bytearray(bucket.read(name))
  content[len(content) // 2] ^= 4
  bucket.put(name, content) if fault == 'flip' else bucket.remove(name)
  folder = toy.train(RUN)
  assert f'{folder}/checkpoints/6' in caplog.text and 'damaged' in caplog.text
  assert bucket.names('run/toy/damaged/6/')
  step, found = toy.final(folder)
  assert step == 10 and np.array_equal(found, whole)


def test_an_incomplete_checkpoint_is_ignored(bucket, whole):
  toy.train(RUN, **{'schedule.total_kimg': 6.0})
  bucket.remove('run/toy/checkpoints/6/commit_success.txt')
  bucket.remove('run/toy/checkpoints/4/commit_success.txt')
  assert not checkpoint.exists(files.path(RUN) / 'toy')
  assert np.array_equal(toy.final(toy.train(RUN))[1], whole)


def test_a_bucket_that_refuses_is_one_line(bucket):
  bucket.refuse = lambda method, name, query: 403 * (method != 'GET')
  with pytest.raises(RunError, match='the bucket cannot be used') as error:
    toy.train(RUN)
  assert '\n' not in str(error.value) and not bucket.objects
  with pytest.raises(RunError, match='gs://missing/run/toy: the bucket cannot be used'):
    toy.train('gs://missing/run')


def test_a_checkpoint_that_cannot_be_written_is_one_line(bucket):
  bucket.refuse = lambda method, name, query: (
    403 * (method in ('POST', 'PUT') and name.startswith('run/toy/checkpoints/4/state/'))
  )
  with pytest.raises(RunError, match=r'could not be written .* step 2 is intact') as error:
    toy.train(RUN)
  assert '\n' not in str(error.value)


def test_the_second_refuses_while_the_first_is_alive(bucket, impatient):
  with lock.hold(files.path(RUN) / 'toy') as check_held:
    told = f'is being trained by process {os.getpid()} on {socket.gethostname()}: wait'
    with pytest.raises(RunError, match=told):
      toy.train(RUN)
    check_held()
  assert not bucket.objects


def test_only_one_of_two_simultaneous_processes_gets_the_lock(bucket, impatient):
  held, refused, done = [], [], threading.Barrier(4)

  def come():
    try:
      with lock._hold_object(files.path(RUN)):
        held.append(1)
        done.wait(30)
    except RunError:
      refused.append(1)
      done.wait(30)

  comers = [threading.Thread(target=come) for _ in range(4)]
  for comer in comers:
    comer.start()
  for comer in comers:
    comer.join()
  assert len(held) == 1 and len(refused) == 3


def test_a_process_that_lost_its_lock_saves_nothing(bucket, impatient, monkeypatch):
  """The process was paused in step 5 until another run had taken over and ended."""

  def stand_still(step):
    if step == 5 and not stood:
      stood.append(step)
      bucket.put('run/toy/.lock', b'process 1 on another\n')

  stood = []
  monkeypatch.setattr(toy, 'hook', stand_still)
  with pytest.raises(RunError, match='process 1 on another took over'):
    monkeypatch.setattr(lock, 'BEAT', 0.05)
    toy.train(RUN, **{'schedule.total_kimg': 3000.0, 'every.evaluate': 3000})
  assert bucket.read('run/toy/.lock') == b'process 1 on another\n'
  assert stage_lib.stage_folder(RUN, 'toy') == files.path(RUN) / 'toy'
