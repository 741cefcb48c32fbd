"""Settings of all tests: few threads, a cache and weights of their own."""

import os
import pathlib
import sys

# Helpers that tests import stand beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import pytest


@pytest.fixture(scope='session', autouse=True)
def own_folders(tmp_path_factory):
  """No test reads or writes the user's cache and weights."""
  os.environ['STEP_JAX_CACHE'] = str(tmp_path_factory.mktemp('cache'))
  os.environ['STEP_JAX_WEIGHTS'] = str(tmp_path_factory.mktemp('weights'))
