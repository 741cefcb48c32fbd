"""Trains like `python -m step_jax.main`, and is killed when the batch of a step is read.

Usage: python -m mosaic.killed STEP ARGUMENTS
"""

import os
import pathlib
import signal
import sys
import time

from mosaic import stage as stage_lib
from step_jax import main
from step_jax.data import pipeline

_WAIT_SECONDS = 60


def _die(folder: pathlib.Path) -> None:
  """SIGKILL after the first checkpoint; later ones may be incomplete."""
  end = time.monotonic() + _WAIT_SECONDS
  while not any(path.name.isdigit() for path in (folder / 'checkpoints').glob('*')):
    assert time.monotonic() < end, 'no checkpoint'
    time.sleep(0.01)
  os.kill(os.getpid(), signal.SIGKILL)


def run(step: int, arguments: list[str]) -> int:
  workdir = next(a.partition('=')[2] for a in arguments if a.startswith('--workdir='))
  train_batches = pipeline.train_batches

  def batches(*args):
    start = args[4]
    for i, batch in enumerate(train_batches(*args), start):
      if i == step:
        _die(pathlib.Path(workdir) / 'mosaic')
      yield batch

  stage_lib.pipeline.train_batches = batches
  return main.main(arguments)


if __name__ == '__main__':
  sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
