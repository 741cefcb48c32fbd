"""One and eight devices, and killed and uninterrupted runs, give the same results."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import region_runs

from step_jax import config as config_lib
from step_jax import methods

HERE = pathlib.Path(__file__).parent


def environment(**more):
  paths = [HERE.parents[2], HERE.parents[1], HERE]
  path = os.pathsep.join(map(str, paths))
  return {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path, **more}


@pytest.mark.long
def test_one_device_equals_eight():
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, str(HERE / 'region_devices.py')],
    env=environment(XLA_FLAGS=flags),
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stderr[-2000:]
  assert json.loads(done.stdout.splitlines()[-1]) < 1e-3


@pytest.mark.long
def test_killed_and_resumed(tmp_path):
  """Repeated SIGKILL at arbitrary times; the final networks are bit-equal."""
  fields = {'schedule.total_kimg': 0.08, 'schedule.fixed_kimg': 0.08, 'every.evaluate': 10}
  config = region_runs.config(**fields)
  names = dict(config_lib.flatten(config))
  given = [f'--config.{name}={names[name]}' for name in {**region_runs.FIELDS, **fields}]
  file = config_lib.stage_file('superstylenet')
  command = [
    sys.executable, '-m', 'step_jax.main', f'--workdir={tmp_path / "killed"}',
    f'--config={file}:swatches_regional,size=16,features=squeezenet1_1', *given,
  ]  # fmt: skip
  log = tmp_path / 'killed/superstylenet/train.log'
  random = np.random.default_rng(0)
  for _ in range(3):
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    steps = len(log.read_text().splitlines()) if log.exists() else 0
    while process.poll() is None and (
      not log.exists() or len(log.read_text().splitlines()) < steps + 4
    ):
      time.sleep(0.2)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
  subprocess.run(command, env=environment(), check=True)
  region_runs.train(tmp_path / 'whole', **fields)
  killed, whole = (methods.load(tmp_path / name).params for name in ('killed', 'whole'))
  jax.tree.map(np.testing.assert_array_equal, killed, whole)
