"""The environment that the two first commands make, with a stand-in for Python."""

import os
import pathlib
import shutil
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parent.parent.parent / 'launch'
# Makes an environment whose python writes down what it is asked.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *--version) echo Python 3.12.0 ;;
  '-m venv .venv') mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  '-m pip'*) printf '%s\\n' "${@: -1}" >>asked ;;
esac
"""


@pytest.mark.parametrize('extras, wanted', [('', '.'), ('test', '.[test]')])
def test_installs_once(tmp_path, extras, wanted):
  (tmp_path / 'launch').mkdir()
  shutil.copy(LAUNCH / 'environment.sh', tmp_path / 'launch')
  (tmp_path / 'setup.py').touch()
  python = tmp_path / 'stand_in'
  python.write_text(PYTHON)
  python.chmod(0o755)
  script = f"set -euo pipefail; source launch/environment.sh; make_environment '{extras}'"
  for _ in range(2):
    environment = {**os.environ, 'PYTHON': str(python)}
    subprocess.run(['bash', '-c', script], cwd=tmp_path, env=environment, check=True)
  assert (tmp_path / 'asked').read_text().splitlines() == [wanted]
