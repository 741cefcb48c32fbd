"""Memory that a process holds beyond what it needs."""

import ctypes
import os
import subprocess
import sys

import pytest

_RESIDENT = '/proc/self/statm'

# Runs in a separate process: blocks would first fill the free memory that other tests left.
_FREES_SMALL_BLOCKS = """
import resource

from step_jax import machine


def resident():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * resource.getpagesize()

blocks = [bytes(2000) for _ in range(100_000)]
# The C library returns free memory at the end of its heap by itself.
last = bytes(2000)
before = resident()
del blocks
kept = resident()
machine.return_free_memory()
print(before - resident(), kept - resident())
"""


@pytest.mark.skipif(
  not (os.path.exists(_RESIDENT) and hasattr(ctypes.CDLL(None), 'malloc_trim')),
  reason='needs Linux and glibc',
)
def test_freed_memory_goes_back_to_the_system():
  run = subprocess.run([sys.executable, '-c', _FREES_SMALL_BLOCKS], stdout=subprocess.PIPE)
  assert run.returncode == 0
  freed, by_call = map(int, run.stdout.split())
  assert freed > 150e6 and by_call > 50e6


def test_training_does_not_import_pytorch(tmp_path):
  (tmp_path / 'torch.py').write_text("raise SystemExit('imported')\n")
  code = 'from step_jax.train import writers; import sys; assert "torch" not in sys.modules'
  path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
  done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path})
  assert done.returncode == 0
