"""A fake bucket for the tests in this folder."""

import os
import pathlib
import sys

import pytest

# Makes the shared test helpers, the toy stage and the server in this folder importable.
HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'reliability')]


@pytest.fixture(scope='session')
def server():
  """A fake of Cloud Storage; libraries read its address once per process."""
  pytest.importorskip('gcsfs', reason='the extra gcs is not installed')
  import fake_gcs

  found = fake_gcs.Bucket()
  os.environ.update(found.variables())
  yield found
  found.close()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
  """An empty bucket; fails if code uses its address as a local folder."""
  server.objects.clear()
  server.refuse = lambda method, name, query: 0
  folder = tmp_path / 'here'
  folder.mkdir()
  monkeypatch.chdir(folder)
  yield server
  assert not list(folder.iterdir())


@pytest.fixture
def impatient(monkeypatch):
  """Short timeout of locks in buckets."""
  from step_jax.train import lock

  monkeypatch.setattr(lock, 'BEAT', 0.1)
  monkeypatch.setattr(lock, 'PATIENCE', 3.0)
