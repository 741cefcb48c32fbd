"""Fixtures for the tests of hostile files."""

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
# Makes the helpers of this folder, and those that write weights files by hand, importable.
sys.path[:0] = [str(HERE), str(HERE.parent / 'weights')]


@pytest.fixture
def apart(tmp_path):
  """A folder for the files of a test; checks that files around it do not change."""
  (tmp_path / 'work').mkdir()
  (tmp_path / 'precious.txt').write_text('precious')
  yield tmp_path / 'work'
  assert sorted(path.name for path in tmp_path.iterdir()) == ['precious.txt', 'work']
  assert (tmp_path / 'precious.txt').read_text() == 'precious'
