"""A fake bucket for the tests in this folder."""

import os
import pathlib
import sys

import pytest

# Beside the helpers of all tests: the stage of a few numbers, and the server here.
HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'reliability')]


@pytest.fixture(scope='session')
def server():
  """A fake of Cloud Storage; the libraries look for it once in a process."""
  pytest.importorskip('gcsfs', reason='the extra gcs is not installed')
  import fake_gcs

  found = fake_gcs.Bucket()
  os.environ.update(found.variables())
  yield found
  found.close()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
  """Its bucket, empty; whatever takes its address for a folder leaves a trace, which fails."""
  server.objects.clear()
  server.refuse = lambda method, name, query: 0
  folder = tmp_path / 'here'
  folder.mkdir()
  monkeypatch.chdir(folder)
  yield server
  assert not list(folder.iterdir())


@pytest.fixture
def impatient(monkeypatch):
  """Holders of locks in buckets count as dead soon."""
  from step_jax.train import lock

  monkeypatch.setattr(lock, 'BEAT', 0.1)
  monkeypatch.setattr(lock, 'PATIENCE', 3.0)
