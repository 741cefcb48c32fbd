"""The toy method on several devices and hosts, with sharded state, and killed."""

import base64
import json
import os
import pathlib
import signal
import subprocess
import sys

import hosts
import jax
import mosaic_runs
import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax import methods
from step_jax.train import writers

TESTS = pathlib.Path(__file__).parents[1]

# Adam's first update has the size of the rate for any gradient: where that is near zero, rounding
# decides the sign. At this rate the moves are negligible; mean squares of gradients and statistics
# are compared.
FIELDS = {'optimizer.lr': 1e-7, 'schedule.total_kimg': 0.032, 'every.log': 1}


@pytest.fixture(scope='module', autouse=True)
def registered():
  """Registers the method here and in child processes."""
  with mosaic_runs.registered(), pytest.MonkeyPatch.context() as patch:
    patch.setenv('PYTHONPATH', os.pathsep.join([str(TESTS), os.environ.get('PYTHONPATH', '')]))
    yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return mosaic_runs.write_data(tmp_path_factory.mktemp('mosaics'))


@pytest.fixture(scope='module')
def alone(folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('alone')
  return methods.train(mosaic_runs.make_config(folder, **FIELDS), workdir)


def arguments(folder, workdir, **fields):
  given = {**mosaic_runs.FIELDS, 'data.path': folder, **FIELDS, **fields}
  return [
    f'--config={config_lib.stage_file("mosaic")}', f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in given.items()),
  ]  # fmt: skip


def train(folder, workdir, count, devices, **fields):
  command = ['-m', 'step_jax.main', *arguments(folder, workdir, **fields)]
  processes = hosts.start(devices, *[command] * count)
  printed = [process.communicate(timeout=300)[0] for process in processes]
  assert [process.returncode for process in processes] == [0] * count, printed
  return workdir / 'mosaic'


def close(one, other):
  rows = writers.read_metrics(one), writers.read_metrics(other)
  for row, also in zip(*rows, strict=True):
    assert row.keys() == also.keys()
    for name in row.keys() - {'images_per_second'}:
      np.testing.assert_allclose(also[name], row[name], rtol=1e-3, atol=1e-5, err_msg=name)
  a, b = mosaic_runs.final(one), mosaic_runs.final(other)
  assert jax.tree.structure(a) == jax.tree.structure(b)
  np.testing.assert_array_equal(a.stats['histogram'], b.stats['histogram'])
  for part, tolerance in (('params', 1e-5), ('ema', 1e-5), ('stats', 1e-3), ('opt', 2e-2)):
    for path, x in jax.tree.leaves_with_path(getattr(a, part)):
      y = dict(jax.tree.leaves_with_path(getattr(b, part)))[path]
      assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(x) + 1e-6, (part, path)


def test_eight_devices_train_as_one(folder, alone, tmp_path):
  close(alone, train(folder, tmp_path, 1, 8))


def test_two_hosts_with_a_split_state_train_as_one_device(folder, alone, tmp_path):
  found = train(folder, tmp_path, 2, 4, fsdp=True)
  kept = json.loads((found / 'checkpoints/4/state/_sharding').read_text())
  lay = {base64.b64decode(name).decode(): json.loads(value) for name, value in kept.items()}
  split = {name for name, value in lay.items() if 'data' in value['partition_spec']}
  # Parameters, averages, optimizers and statistics are sharded.
  assert {name.partition('.')[0] for name in split} == {'params', 'ema', 'opt', 'stats'}, split
  close(alone, found)


def test_a_killed_run_ends_like_an_uninterrupted_one(folder, alone, tmp_path):
  """SIGKILL, then the same command again: arrays and log are bit-equal."""
  command = [sys.executable, '-m', 'mosaic.killed', '3', *arguments(folder, tmp_path)]
  killed = subprocess.run(command, cwd=hosts.ROOT, capture_output=True, text=True)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  methods.train(mosaic_runs.make_config(folder, **FIELDS), tmp_path)
  log = (tmp_path / 'mosaic/train.log').read_text()
  assert 'steps 1 to 4' in log and 'steps 3 to 4' in log
  mosaic_runs.same(mosaic_runs.final(alone), mosaic_runs.final(tmp_path / 'mosaic'))
  rows = [
    [{k: v for k, v in row.items() if k != 'images_per_second'} for row in read]
    for read in map(writers.read_metrics, (alone, tmp_path / 'mosaic'))
  ]
  assert rows[0] == rows[1]
