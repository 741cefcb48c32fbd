"""Batch norm against the formulas of PyTorch's documentation in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.models import norms

X = np.random.RandomState(0).standard_normal((4, 3, 2, 5)) * 3 + 1
SCALE = np.linspace(0.5, 1.5, 5)
BIAS = np.linspace(-1, 1, 5)
MEAN = np.linspace(-2, 2, 5)
VAR = np.linspace(0.5, 4, 5)
VARIABLES = {
  'params': {'scale': SCALE, 'bias': BIAS},
  'batch_stats': {'mean': MEAN, 'var': VAR},
}


@pytest.mark.parametrize('x', [X, X.reshape(-1, 5)])
@pytest.mark.parametrize('momentum', [0.1, 0.3])
def test_training_uses_the_batch_and_moves_unbiased_statistics(x, momentum):
  norm = norms.BatchNorm(momentum=momentum)
  y, moved = norm.apply(VARIABLES, jnp.asarray(x), train=True, mutable=['batch_stats'])
  flat = x.reshape(-1, 5)
  expected = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * SCALE + BIAS
  np.testing.assert_allclose(y, expected, atol=1e-5)
  stats = moved['batch_stats']
  new = {'mean': flat.mean(0), 'var': flat.var(0, ddof=1)}
  for name, old in VARIABLES['batch_stats'].items():
    np.testing.assert_allclose(stats[name], (1 - momentum) * old + momentum * new[name], rtol=1e-5)


@pytest.mark.parametrize('affine', [True, False])
def test_evaluation_uses_the_running_statistics(affine):
  norm = norms.BatchNorm(affine=affine)
  variables = VARIABLES if affine else {'batch_stats': VARIABLES['batch_stats']}
  expected = (X - MEAN) / np.sqrt(VAR + 1e-5)
  expected = expected * SCALE + BIAS if affine else expected
  np.testing.assert_allclose(
    norm.apply(variables, jnp.asarray(X), train=False), expected, atol=1e-5
  )


def test_initial_variables():
  variables = norms.BatchNorm().init(jax.random.key(0), jnp.asarray(X), train=True)
  expected = {'params': {'scale': 1, 'bias': 0}, 'batch_stats': {'mean': 0, 'var': 1}}
  jax.tree.map(
    lambda x, value: np.testing.assert_array_equal(x, np.full(5, value)), variables, expected
  )
  assert 'params' not in norms.BatchNorm(affine=False).init(
    jax.random.key(0), jnp.asarray(X), train=False
  )


def test_statistics_stay_in_float32_when_computing_in_bfloat16():
  x = (100 + jax.random.normal(jax.random.key(0), (8, 32, 32, 1))).astype(jnp.bfloat16)
  norm = norms.BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=True)
  y, moved = norm.apply(variables, x, train=True, mutable=['batch_stats'])
  assert y.dtype == jnp.bfloat16 and moved['batch_stats']['var'].dtype == jnp.float32
  assert abs(float(y.astype(jnp.float32).mean())) < 0.05


def test_one_value_per_channel_cannot_be_trained_on():
  with pytest.raises(ValueError, match='one value per channel.*larger batch'):
    norms.BatchNorm().init(jax.random.key(0), jnp.ones((1, 5)), train=True)
