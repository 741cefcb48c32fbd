"""A damaged checkpoint is reported, and the previous one is used."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from step_jax.errors import RunError
from step_jax.train import checkpoint, writers

pytestmark = [
  # Fails on warnings that a user would see: orbax's coroutines print a page each.
  pytest.mark.filterwarnings('error:.*<coroutine:pytest.PytestUnraisableExceptionWarning'),
  # On a busy machine a thread of the array store may end after the wait is over.
  pytest.mark.filterwarnings('ignore:.*in. None:pytest.PytestUnraisableExceptionWarning'),
]

LENGTH = {'schedule.total_kimg': 6.0}


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
  """A run of six steps with checkpoints 4 and 6; 4 is the best."""
  return toy.train(tmp_path_factory.mktemp('stopped'), **LENGTH).parent


def remove(path):
  path.unlink()


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
  path.write_bytes(b'')


def zero(path):
  path.write_bytes(bytes(path.stat().st_size))


def flip(path):
  """Flips one bit in the middle."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 4
  path.write_bytes(content)


def largest(folder: pathlib.Path) -> pathlib.Path:
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda path: path.stat().st_size)


def described(folder: pathlib.Path) -> pathlib.Path:
  return folder / 'state/_METADATA'


def digests(folder: pathlib.Path) -> pathlib.Path:
  return folder / 'digests/metadata'


def scores(folder: pathlib.Path) -> pathlib.Path:
  return folder / 'metrics/metrics'


FAULTS = [(largest, fault) for fault in (remove, truncate, empty, zero, flip)]
FAULTS += [(described, remove), (described, zero), (digests, remove)]


@pytest.mark.parametrize(('which', 'fault'), FAULTS)
def test_the_previous_checkpoint_is_used(which, fault, stopped, tmp_path, caplog, whole):
  workdir = tmp_path / 'run'
  shutil.copytree(stopped, workdir)
  fault(which(workdir / 'toy/checkpoints/6'))
  folder = toy.train(workdir)
  assert f'{folder}/checkpoints/6' in caplog.text and 'damaged' in caplog.text
  assert 'steps 5 to 10' in (folder / 'train.log').read_text()
  step, found = toy.final(folder)
  assert step == 10 and np.array_equal(found, whole)
  assert [row['step'] for row in writers.read_metrics(folder) if 'loss' in row] == [*range(1, 11)]
  # The damaged checkpoint is moved aside, not deleted.
  assert (folder / 'damaged/6').is_dir()


@pytest.mark.parametrize('content', ['nothing', 'no state'])
def test_a_checkpoint_without_files_is_ignored(content, stopped, tmp_path, whole):
  workdir = tmp_path / 'run'
  shutil.copytree(stopped, workdir)
  newest = workdir / 'toy/checkpoints/6'
  shutil.rmtree(newest if content == 'nothing' else newest / 'state')
  newest.mkdir(exist_ok=True)
  assert np.array_equal(toy.final(toy.train(workdir))[1], whole)


def test_without_an_intact_checkpoint_training_does_not_restart(stopped, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(stopped, workdir)
  for step in ('4', '6'):
    zero(largest(workdir / 'toy/checkpoints' / step))
  for _ in range(2):
    with pytest.raises(RunError, match='has no intact checkpoint') as error:
      toy.train(workdir)
    assert '\n' not in str(error.value)
  assert sorted(path.name for path in (workdir / 'toy/checkpoints').iterdir()) == ['4', '6']


NOT_AS_WRITTEN = (
  '[]',
  'null',
  '7',
  '[' * 100_000,
  '{"score": null}',
  '{"score": "x"}',
  '{"a": {}}',
)


@pytest.mark.parametrize('name', ['metrics/metrics', 'digests/metadata', '_CHECKPOINT_METADATA'])
def test_invalid_descriptions(name, stopped, tmp_path):
  """Valid JSON with other content is ignored, or the checkpoint counts as damaged."""
  folder = tmp_path / 'toy'
  shutil.copytree(stopped / 'toy', folder)
  path = folder / 'checkpoints/6' / name
  for content in (*NOT_AS_WRITTEN, '{"commit_timestamp_nsecs": 99999999999999999999999}'):
    path.write_text(content)
    opened = checkpoint.Checkpoints(folder, 'score', create=False)
    assert opened.latest == 6 and opened.names() == {'net'}
    assert opened.best == (4 if 'metrics' in name else 6)
    assert opened.restore_newest(like())[0] in (4, 6)


def like():
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return {'params': {'net': {'w': jax.ShapeDtypeStruct((40, 50), np.float32, sharding=sharding)}}}


@pytest.mark.parametrize('fault', [zero, flip])
def test_readers_do_not_move_files(fault, stopped, tmp_path, caplog):
  folder = tmp_path / 'toy'
  shutil.copytree(stopped / 'toy', folder)
  fault(largest(folder / 'checkpoints/6'))
  checkpoints = checkpoint.Checkpoints(folder, 'score', create=False)
  assert checkpoints.restore_newest(like())[0] == 4
  assert 'checkpoints/6: this checkpoint is damaged' in caplog.text
  # If a step is requested, no other checkpoint is used instead.
  with pytest.raises(RunError, match='checkpoints/6: this checkpoint is damaged') as error:
    checkpoints.restore(like(), 6)
  assert '\n' not in str(error.value)
  assert (folder / 'checkpoints/6').is_dir() and not (folder / 'damaged').exists()


@pytest.mark.parametrize('fault', [zero, remove])
def test_damaged_scores_hide_neither_the_latest_nor_the_best(fault, stopped, tmp_path, whole):
  workdir = tmp_path / 'run'
  shutil.copytree(stopped, workdir)
  opened = checkpoint.Checkpoints(workdir / 'toy', 'score', create=False)
  assert (opened.latest, opened.best) == (6, 6)
  fault(scores(workdir / 'toy/checkpoints/6'))
  opened = checkpoint.Checkpoints(workdir / 'toy', 'score', create=False)
  assert (opened.latest, opened.best) == (6, 4)
  folder = toy.train(workdir)
  assert np.array_equal(toy.final(folder)[1], whole)


def test_checkpoints_without_digests_are_read(stopped, tmp_path):
  """Checkpoints of older versions."""
  folder = tmp_path / 'toy'
  shutil.copytree(stopped / 'toy', folder)
  for step in ('4', '6'):
    shutil.rmtree(folder / 'checkpoints' / step / 'digests')
  assert toy.final(folder)[0] == 6


_SPLIT = """
import pathlib, sys
import jax, numpy as np
from step_jax.train import checkpoint, mesh
devices = mesh.make_mesh()
assert devices.size == 2
w = jax.device_put(np.random.default_rng(0).random((40, 50), np.float32), mesh.split(devices))
checkpoints = checkpoint.Checkpoints(pathlib.Path(sys.argv[1]))
for step in (1, 2):
  checkpoints.save(step, {'params': {'net': {'w': w if step == 1 else -w}}})
checkpoints.close()
"""


def test_arrays_that_were_split_over_devices_are_checked_on_another_number(tmp_path):
  subprocess.run(
    [sys.executable, '-c', _SPLIT, str(tmp_path)],
    check=True, cwd=pathlib.Path(__file__).parents[2],
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
    },
  )  # fmt: skip
  step, found = toy.final(tmp_path)
  expected = -np.random.default_rng(0).random((40, 50), np.float32)
  assert step == 2 and np.array_equal(found, expected)
  flip(largest(tmp_path / 'checkpoints/2'))
  assert toy.final(tmp_path)[0] == 1


def test_leftovers_of_a_killed_write_are_not_a_checkpoint_and_are_removed(stopped, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(stopped, workdir)
  checkpoints = workdir / 'toy/checkpoints'
  half = checkpoints / '7.orbax-checkpoint-tmp'
  shutil.copytree(checkpoints / '6', half)
  empty(largest(half))
  assert toy.final(workdir / 'toy')[0] == 6
  assert half.is_dir()  # Readers delete nothing.
  toy.train(workdir)
  assert sorted(path.name for path in checkpoints.iterdir() if not path.name.isdigit()) == []
  for path in checkpoints.iterdir():
    shutil.rmtree(path)
  half.mkdir()
  assert not checkpoint.exists(workdir / 'toy')
