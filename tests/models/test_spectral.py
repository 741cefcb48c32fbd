"""Spectral norm against its definition; tests/methods/superstylenet has vectors of the original."""

import jax
import jax.numpy as jnp
import numpy as np

from step_jax.models.spectral import SpectralNorm, spectral_norm


def test_iterations_find_the_largest_singular_value():
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 6))
  variables = SpectralNorm().init(jax.random.key(1), kernel, True)
  step = jax.jit(lambda v: SpectralNorm().apply(v, kernel, True, mutable=['spectral']))
  for _ in range(200):
    normalised, variables = step(variables)
  largest = np.linalg.svd(np.asarray(kernel).reshape(-1, 6))[1][0]
  np.testing.assert_allclose(normalised * largest, kernel, rtol=1e-4)


def test_evaluation_changes_nothing_and_training_moves_once():
  kernel = jax.random.normal(jax.random.key(0), (1, 1, 4, 6))
  variables = SpectralNorm().init(jax.random.key(1), kernel, False)
  u, v = (np.asarray(variables['spectral'][name], np.float64) for name in 'uv')
  np.testing.assert_allclose([np.linalg.norm(u), np.linalg.norm(v)], 1, rtol=1e-5)
  matrix = np.asarray(kernel, np.float64).reshape(4, 6)
  still = SpectralNorm().apply(variables, kernel, False)
  np.testing.assert_allclose(still, kernel / (v @ matrix @ u), rtol=1e-5)
  _, moved = SpectralNorm().apply(variables, kernel, True, mutable=['spectral'])
  v = matrix @ u / np.linalg.norm(matrix @ u)
  u = v @ matrix / np.linalg.norm(v @ matrix)
  np.testing.assert_allclose(moved['spectral']['v'], v, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(moved['spectral']['u'], u, rtol=1e-4, atol=1e-6)


def test_the_gradient_takes_the_vectors_as_given():
  """d/dW of sum(R W / (v W u)) with u and v fixed."""
  kernel = jax.random.normal(jax.random.key(0), (1, 1, 4, 6))
  weight = jax.random.normal(jax.random.key(2), kernel.shape)
  variables = SpectralNorm().init(jax.random.key(1), kernel, False)

  def loss(kernel):
    return jnp.sum(weight * SpectralNorm().apply(variables, kernel, False))

  u, v = variables['spectral']['u'], variables['spectral']['v']
  outer = jnp.outer(v, u).reshape(kernel.shape)
  sigma = jnp.sum(outer * kernel)
  expected = weight / sigma - jnp.sum(weight * kernel) / sigma**2 * outer
  np.testing.assert_allclose(jax.grad(loss)(kernel), expected, rtol=1e-4, atol=1e-5)


def test_spectral_norm_without_state_is_close_to_the_definition():
  for seed in range(5):
    kernel = jax.random.normal(jax.random.key(seed), (4, 4, 8, 16))
    largest = np.linalg.svd(np.asarray(spectral_norm(kernel)).reshape(-1, 16))[1][0]
    # An estimate is never above the largest singular value.
    assert 1 - 1e-5 < largest < 1.05
  exact = spectral_norm(kernel, iterations=200)
  np.testing.assert_allclose(np.linalg.svd(np.asarray(exact).reshape(-1, 16))[1][0], 1.0, rtol=1e-4)
  np.testing.assert_allclose(spectral_norm(30 * kernel), spectral_norm(kernel), rtol=1e-4)


def test_spectral_norm_of_zeros_is_finite():
  assert np.isfinite(spectral_norm(jnp.zeros((1, 1, 4, 1)))).all()
