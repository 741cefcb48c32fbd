"""What the tests of faults share."""

import pathlib
import sys

import pytest

# Beside the helpers of all tests, those of this folder.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope='session')
def whole(tmp_path_factory):
  """Weights at the end of a run that nothing happened to."""
  import toy

  return toy.final(toy.train(tmp_path_factory.mktemp('whole')))[1]
