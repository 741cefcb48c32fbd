"""Fixtures for the tests of faults."""

import pathlib
import signal
import sys

import pytest

# Makes the shared helpers and those of this folder importable.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope='session')
def whole(tmp_path_factory):
  """Final weights of an uninterrupted run."""
  import toy

  return toy.final(toy.train(tmp_path_factory.mktemp('whole')))[1]


@pytest.fixture(autouse=True)
def interruptible():
  """Handles signals as at a terminal, even if a script runs the tests in the background.

  There SIGINT is ignored, also in the processes that tests start.
  """
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)
