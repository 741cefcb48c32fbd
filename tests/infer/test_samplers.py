"""Samplers of style codes: the Gaussian and the mapper, and their comparison."""

import jax
import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax.evaluate import distributions
from step_jax.methods.step import samplers
from step_jax.methods.step.scores import health
from step_jax.methods.step.steps import mapper


def mapper_config(**imle):
  config = config_lib.load(config_lib.stage_file('mapper') + ':swatches')
  config.imle.update(imle)
  return config


def fit(config, codes, epochs):
  """Fits a mapper to codes `[N, Z]`, as in its stage."""
  config.model.z_dim = codes.shape[1]
  units = mapper.standardization(config, codes)
  method = mapper.make(config, len(codes))
  frozen = {'codes': mapper.in_training_units(codes, *units)}
  state, step = method.init(jax.random.key(0)), method.jitted_step()
  for _ in range(epochs):
    state, _ = step(state, {}, frozen)
  return samplers.mapper(config, jax.device_get(state.params['mapper']), codes)


def narrow(count, seed=0):
  """Codes far from the origin with small and different deviations per dimension."""
  noise = np.random.default_rng(seed).standard_normal((count, 8))
  return (5 + noise * np.geomspace(0.02, 0.2, 8)).astype(np.float32)


@pytest.mark.parametrize('shape', [(30, 4), (30, 1), (1, 4), (2, 1), (1, 1), (5, 0)])
def test_the_gaussian_of_any_codes(shape):
  codes = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  found = samplers.covariance(codes)
  assert found.shape == (shape[1], shape[1])
  if shape[0] > 1 and shape[1]:
    np.testing.assert_allclose(found, np.cov(codes.T).reshape(found.shape), rtol=1e-6)
  drawn = samplers.gaussian(codes).draw(7, 0)
  assert drawn.shape == (7, shape[1]) and drawn.dtype == np.float32
  if shape[0] == 1:
    np.testing.assert_allclose(drawn, np.repeat(codes, 7, axis=0), rtol=1e-6)
  assert health.draw_like(codes, 0).shape == shape


def test_the_gaussian_draws_what_numpy_does():
  """Scores of protocols must not change."""
  codes = narrow(50)
  expected = np.random.default_rng(3).multivariate_normal(codes.mean(0), np.cov(codes.T), 20)
  np.testing.assert_allclose(samplers.gaussian(codes).draw(20, 3), expected, rtol=1e-5)


def test_a_mapper_in_code_units_draws_its_samples_scaled_back():
  config, codes = mapper_config(), narrow(40)
  params = mapper.make(config, 40).init(jax.random.key(1)).params['mapper']
  noise = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
  plain = samplers.mapper(mapper_config(standardize=False), params, codes)
  scaled = samplers.mapper(config, params, codes)
  offset, scale = mapper.standardization(config, codes)
  expected = plain.apply(plain.params, noise) * scale + offset
  np.testing.assert_allclose(scaled.apply(scaled.params, noise), expected, rtol=1e-4, atol=1e-5)
  back = mapper.in_training_units(codes, offset, scale)
  np.testing.assert_allclose(back.mean(axis=0), 0, atol=1e-4)
  np.testing.assert_allclose(back.std(axis=0), 1, rtol=1e-3)


def test_folders_without_the_field_are_of_the_original_way():
  config, codes = mapper_config(), narrow(40)
  with config.unlocked():
    del config.imle['standardize']
  offset, scale = mapper.standardization(config, codes)
  np.testing.assert_array_equal(offset, 0)
  np.testing.assert_array_equal(scale, 1)


@pytest.mark.parametrize('shape', [(1, 3), (20, 1)])
def test_a_mapper_of_few_codes_or_dimensions(shape):
  codes = 5 + np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  drawn = fit(mapper_config(), codes, 20).draw(50, 0)
  assert drawn.shape == (50, shape[1]) and np.isfinite(drawn).all()
  if shape[0] == 1:
    np.testing.assert_allclose(drawn, np.repeat(codes, 50, axis=0), rtol=1e-5)


def test_a_dimension_that_never_varies_is_drawn_exactly():
  codes = narrow(40)
  codes[:, 2] = 3.25
  np.testing.assert_allclose(fit(mapper_config(), codes, 5).draw(50, 0)[:, 2], 3.25, rtol=1e-6)


def test_standardisation_helps_with_narrow_off_center_codes():
  codes, held = narrow(300), narrow(100, seed=1)
  energy = {
    way: distributions.sample_distances(
      held, fit(mapper_config(standardize=way), codes, 60).draw(1000, 0)
    ).energy
    for way in (True, False)
  }
  assert energy[True] < 0.5 * energy[False]


def test_distances_of_samples():
  rng = np.random.default_rng(0)
  real, drawn = rng.standard_normal((700, 3)), 1 + rng.standard_normal((530, 3))
  across = np.linalg.norm(real[:, None] - drawn, axis=-1)
  within = [
    np.linalg.norm(x[:, None] - x, axis=-1).sum() / (len(x) * (len(x) - 1)) for x in (real, drawn)
  ]
  found = distributions.sample_distances(real, drawn)
  assert found.coverage == pytest.approx(across.min(axis=1).mean())
  assert found.precision == pytest.approx(across.min(axis=0).mean())
  assert found.energy == pytest.approx(2 * across.mean() - sum(within))
  alike = distributions.sample_distances(real, rng.standard_normal((900, 3)))
  assert abs(alike.energy) < 0.02 < found.energy
  # The energy is independent of the offset, and defined for a single vector.
  far = distributions.sample_distances(real + 1e6, drawn + 1e6)
  assert far.energy == pytest.approx(found.energy, rel=1e-6)
  assert np.isfinite(distributions.sample_distances(real[:1], drawn).energy)
