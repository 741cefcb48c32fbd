"""A method outside of this package gets everything that is shared by methods."""

import mosaic
import mosaic_runs
from mosaic_runs import final, make_config, same
import numpy as np
import pytest

from step_jax import methods
from step_jax.train import checkpoint, run, writers
from step_jax.train import mesh as mesh_lib


@pytest.fixture(scope='module', autouse=True)
def registered():
  with mosaic_runs.registered():
    yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return mosaic_runs.write_data(tmp_path_factory.mktemp('mosaics'))


@pytest.fixture(scope='module')
def trained(folder, tmp_path_factory):
  """A run of six steps."""
  workdir = tmp_path_factory.mktemp('run')
  methods.train(make_config(folder), workdir)
  return workdir


def test_a_lazy_term_has_a_value_in_every_line(trained):
  rows = [row for row in writers.read_metrics(trained / 'mosaic') if 'r1' in row]
  assert [row['step'] for row in rows] == [2, 4, 6]
  assert all(row['r1'] > 0 for row in rows)


def test_a_stage_starts_with_the_statistics_of_the_previous_one(folder, trained, tmp_path):
  config = make_config(folder, init_from=str(trained / 'mosaic'))
  mesh = mesh_lib.make_mesh()
  stage = methods.STAGES['mosaic'].hook('build')(config, tmp_path, mesh)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  state = run._initial_state(config, stage, checkpoints, run._shardings(config, stage, mesh))
  before = final(trained / 'mosaic')
  for name in ('generator', 'discriminator'):
    same(state.params[name], before.params[name])
    same(state.stats[name], before.stats[name])
  # The averages of networks and statistics start at their current values.
  same(state.ema['generator'], before.params['generator'])
  same(state.stats['averaged_generator'], before.stats['generator'])
  assert not np.any(state.stats['histogram'])


def test_names_of_stages_are_unique():
  other = methods.Method('other', '', (methods.Stage('pretrain', {}),), translating=(), run='')
  with pytest.raises(ValueError, match="another method has a stage 'pretrain'"):
    methods.register(other)
  assert 'other' not in methods.METHODS
  methods.register(mosaic.METHOD)
  assert methods.of_stage('mosaic')[0] is mosaic.METHOD
