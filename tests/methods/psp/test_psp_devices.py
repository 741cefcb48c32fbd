"""One and eight devices give the same results; batch norm uses the whole batch."""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def test_one_device_equals_eight():
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
  paths = [HERE.parents[2], HERE.parents[1], HERE]
  done = subprocess.run(
    [sys.executable, str(HERE / 'eight_devices.py')],
    env={
      **os.environ,
      'XLA_FLAGS': flags,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': os.pathsep.join(map(str, paths)),
    },
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stderr[-2000:]
  found = json.loads(done.stdout.splitlines()[-1])
  assert found.keys() == {'stylegan2', 'psp'}
  for name, difference in found.items():
    # float32 sums in a different order.
    assert difference < 1e-3, (name, difference)
