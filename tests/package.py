"""Arguments that `setup.py` passes to setuptools, without running setuptools."""

import pathlib
import runpy
import sys
import types
from unittest import mock

ROOT = pathlib.Path(__file__).parent.parent


def setup_arguments() -> dict:
  """The arguments of `setuptools.setup`."""
  arguments = {}
  stand_in = types.SimpleNamespace(setup=arguments.update, find_packages=lambda include: include)
  with mock.patch.dict(sys.modules, setuptools=stand_in):
    runpy.run_path(str(ROOT / 'setup.py'))
  return arguments
