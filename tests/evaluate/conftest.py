"""Fixtures: random weights, and a run with scores."""

import shutil

import flax.traverse_util
import numpy as np
import pytest

from step_jax import places, weights
from step_jax.weights import nets, own_format


def store(name, arrays, lineage='torchvision'):
  """Writes weights to the store."""
  made = own_format.Weights(name, arrays, 'made up', '0' * 64, lineage)
  own_format.write(made, places.weights() / f'{name}.safetensors')


def store_alexnet(lineage='torchvision'):
  """A random AlexNet with random heads: a distance like LPIPS."""
  taps = nets.HEADS['lpips_alex'][1]
  net = weights.load_features('alexnet', list(taps), 'random')
  store('alexnet', flax.traverse_util.flatten_dict(net.params, sep='/'), lineage)
  random = np.random.default_rng(0)
  heads = {tap: random.random(channels, np.float32) for tap, channels in taps.items()}
  store('lpips_alex', heads)


@pytest.fixture
def empty_store(tmp_path, monkeypatch):
  """An empty weights store for this test; yields a function that fills it."""
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'weights'))
  return store_alexnet


@pytest.fixture(scope='session')
def scored_run(trained_run, tmp_path_factory):
  """A copy of the trained run, scored by all groups: its folder, and the scores."""
  from step_jax.evaluate import results

  workdir = tmp_path_factory.mktemp('scored') / 'run'
  shutil.copytree(trained_run[0], workdir)
  return workdir, results.find(workdir)
