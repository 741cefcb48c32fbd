"""Computations of a run: encoding, generation, mixing and interpolation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.methods.psp import encoders, functions, generator, styles

GENERATOR = generator.Generator((8,) * 4, style_dim=8, mapping_depth=2)
ENCODER = encoders.IntoWPlusEncoder(8, 64, (1, 1, 1, 1), (16,) * 4, style_dim=8)


@pytest.fixture(scope='module')
def variables():
  keys = jax.random.split(jax.random.key(0), 3)
  init = jax.jit(functools.partial(ENCODER.init, train=False))
  return {
    'encoder': init(keys[0], jnp.zeros((1, 64, 64, 3))),
    'generator': jax.jit(GENERATOR.init)(keys[1], jnp.zeros((1, 8))),
    'mean_style': jax.random.normal(keys[2], (8,)),
  }


@pytest.fixture(scope='module')
def own(variables):
  """Styles of two images and of two latents."""
  inputs = jax.random.uniform(jax.random.key(3), (2, 64, 64, 3), minval=-1)
  codes = functions.encode(ENCODER, GENERATOR, variables, inputs)
  offsets = functions.encode(ENCODER, GENERATOR, variables, inputs, start_from_mean=False)
  np.testing.assert_allclose(codes, offsets + variables['mean_style'], atol=1e-6)
  z = jax.random.normal(jax.random.key(4), (2, 8))
  return codes, functions.random_styles(GENERATOR, variables, z), z


def test_images(variables, own):
  codes, other, z = own
  assert codes.shape == other.shape == (2, 8, 8)
  draw = jax.jit(functools.partial(functions.draw, GENERATOR))
  image = draw(variables, codes)
  assert image.shape == (2, 32, 32, 3) and image.dtype == jnp.uint8
  np.testing.assert_array_equal(draw(variables, codes), image)
  assert not np.array_equal(draw(variables, other), image)
  down = functions.draw(GENERATOR, variables, codes, round_down=True)
  assert set(np.unique(image.astype(int) - down)) <= {0, 1}


def test_truncation(variables, own):
  _, other, z = own
  for truncation, expected in (
    (1.0, other),
    (0.0, jnp.broadcast_to(variables['mean_style'], other.shape)),
  ):
    found = functions.random_styles(GENERATOR, variables, z, truncation)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_mixing(variables, own):
  codes, other, _ = own
  layers = styles.parse_layers('5-', 8)
  mixed = functions.mix(variables, codes, other, layers)
  np.testing.assert_array_equal(mixed[:, :5], codes[:, :5])
  np.testing.assert_array_equal(mixed[:, 5:], other[:, 5:])
  np.testing.assert_array_equal(functions.mix(variables, codes, other, layers, 0.0), codes)
  half = functions.mix(variables, codes, other, layers, 0.5)
  np.testing.assert_allclose(half[:, 5:], (codes + other)[:, 5:] / 2, atol=1e-6)
  # Layers without another style use the mean style.
  mean = functions.mix(variables, codes, None, layers)
  np.testing.assert_array_equal(mean[0, 5], variables['mean_style'])


def test_interpolation(own):
  codes, other, _ = own
  between = functions.interpolate(codes[0], other[0], 5)
  assert between.shape == (5, 8, 8)
  np.testing.assert_allclose(between[0], codes[0], atol=1e-6)
  np.testing.assert_allclose(between[-1], other[0], atol=1e-6)
  np.testing.assert_allclose(between[2], (codes[0] + other[0]) / 2, atol=1e-6)


def test_one_style_for_all_layers_starts_from_a_mean_for_each(variables):
  encoder = encoders.IntoWEncoder(64, (1, 1, 1, 1), (16,) * 4, style_dim=8)
  init = jax.jit(functools.partial(encoder.init, train=False))
  inputs = jnp.zeros((2, 64, 64, 3))
  mean = jax.random.normal(jax.random.key(5), (8, 8))
  own = {**variables, 'encoder': init(jax.random.key(0), inputs), 'mean_style': mean}
  codes = functions.encode(encoder, GENERATOR, own, inputs)
  w = encoder.apply(own['encoder'], inputs, train=False)
  np.testing.assert_allclose(codes, w[:, None] + mean, atol=1e-6)
