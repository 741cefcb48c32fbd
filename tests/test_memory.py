"""Memory that a process holds beyond what it needs."""

import ctypes
import os
import subprocess
import sys

import pytest

from step_jax import machine

_RESIDENT = '/proc/self/statm'


def resident() -> int:
  """Resident memory of this process in bytes."""
  with open(_RESIDENT) as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.skipif(
  not (os.path.exists(_RESIDENT) and hasattr(ctypes.CDLL(None), 'malloc_trim')),
  reason='needs Linux and glibc',
)
def test_freed_memory_goes_back_to_the_system():
  blocks = [bytes(2000) for _ in range(100_000)]
  # The C library returns free memory at the end of its heap by itself.
  last = bytes(2000)
  before = resident()
  del blocks
  kept = resident()
  machine.return_free_memory()
  assert before - resident() > 150e6 and kept - resident() > 50e6
  del last


def test_training_does_not_import_pytorch(tmp_path):
  (tmp_path / 'torch.py').write_text("raise SystemExit('imported')\n")
  code = 'from step_jax.train import writers; import sys; assert "torch" not in sys.modules'
  path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
  done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path})
  assert done.returncode == 0
