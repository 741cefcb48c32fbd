"""Fixtures shared by many tests: separate folders, a small image folder, a trained run."""

import os
import pathlib
import re
import sys

# Makes the helpers in this folder importable.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import pytest


def pytest_addoption(parser):
  parser.addoption('--long', action='store_true', help='run the tests that take many minutes too')


def pytest_xdist_auto_num_workers(config):
  """One more than the number of cores, because tests wait for disks and child processes."""
  return (os.cpu_count() or 1) + 1


def pytest_xdist_make_scheduler(config, log):
  """Runs each file in one process, and all files that use `trained_run` in the same one.

  Groups with the most tests start first.
  """
  from xdist.scheduler import LoadFileScheduling

  class ByRun(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
      file = super()._split_scope(nodeid)
      return 'trained_run' if file in users else file

  users = {
    path.relative_to(config.rootpath).as_posix()
    for path in pathlib.Path(__file__).parent.rglob('test_*.py')
    if re.search(r'\b(trained_run|scored_run)\b', path.read_text('utf-8'))
  }
  return ByRun(config, log)


def pytest_collection_modifyitems(config, items):
  """Runs tests marked `long` only with --long."""
  if config.getoption('--long'):
    return
  left_out = [item for item in items if item.get_closest_marker('long')]
  if left_out:
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_configure(config):
  """Reduces the compile time, which would dominate the tests.

  Programs of any size are cached between test runs, and shared between files, workers and child
  processes; LLVM optimizations are off. `XLA_FLAGS= launch/test.sh` tests with the default flags.
  """
  os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(config.cache.mkdir('compiled')))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
  if hasattr(config, 'workerinput'):
    # XLA's threads: those of several processes would wait for one another.
    os.environ.setdefault('NPROC', '1')


@pytest.fixture(scope='session', autouse=True)
def own_folders(tmp_path_factory):
  """Keeps tests and their child processes away from the user's cache and weights."""
  os.environ['STEP_JAX_CACHE'] = str(tmp_path_factory.mktemp('cache'))
  os.environ['STEP_JAX_WEIGHTS'] = str(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='session', autouse=True)
def small_scores():
  """Scores images at 64 px, because features at 224 or 256 px would take most of the time."""
  import tiny

  with tiny.score_at(64, 64):
    yield


@pytest.fixture(scope='module', autouse=True)
def little_memory():
  """Releases compiled programs in memory after each file; those on disk remain."""
  yield
  import jax

  jax.clear_caches()


@pytest.fixture(scope='session')
def picture_folder(tmp_path_factory):
  """24 training and 5 validation pairs, side by side; each half is 16 px high and 20 px wide."""
  import tiny

  return tiny.write_pictures(tmp_path_factory.mktemp('pictures'), 20, 16)


@pytest.fixture(scope='session')
def trained_run(picture_folder, tmp_path_factory):
  """Trains all four stages for a few steps each.

  Returns the run's folder, and the fields that were read during training.
  """
  import tiny

  workdir = tmp_path_factory.mktemp('run')
  with tiny.record_fields() as read, tiny.record_programs() as programs:
    for stage in tiny.STAGES:
      tiny.train(stage, picture_folder, workdir)
    from step_jax.evaluate import results

    with tiny.score_at(256, 224):
      results.evaluate(workdir)
  PROGRAMS.update(programs)
  return workdir, read


# Programs that `trained_run` compiled.
PROGRAMS: dict = {}


@pytest.fixture
def programs(trained_run):
  """Functions compiled by `trained_run`, with the shapes of their arguments, by name."""
  return PROGRAMS
