"""Creates networks from a configuration, and sums weighted losses."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections

from step_jax.methods.step import models as nets

# Size of images for parameter initialisation: small, and divisible by all strides.
_DUMMY_SIZE = 64


def style_encoder(config: ml_collections.ConfigDict) -> nets.StyleEncoder:
  """The style encoder of `config.model`."""
  model = config.model
  return nets.StyleEncoder(
    z_dim=model.z_dim,
    width=model.encoder_width,
    pixel_norm=model.pixel_norm,
    dtype=jnp.dtype(config.dtype),
    remat=config.get('remat', False),
  )


def generator(config: ml_collections.ConfigDict) -> nets.Generator:
  """The generator of `config.model`."""
  model = config.model
  return nets.Generator(
    width=model.generator_width,
    skip=model.skip,
    code_everywhere=model.code_everywhere,
    dtype=jnp.dtype(config.dtype),
    remat=config.get('remat', False),
  )


def discriminator(config: ml_collections.ConfigDict) -> nets.MultiScaleDiscriminator:
  """The discriminator of `config.model`."""
  model = config.model
  return nets.MultiScaleDiscriminator(
    width=model.discriminator_width,
    num_scales=model.num_scales,
    spectral_norm=model.spectral_norm,
    dtype=jnp.dtype(config.dtype),
    remat=config.get('remat', False),
  )


def mapper(config: ml_collections.ConfigDict) -> nets.Mapper:
  """The mapper of `config.model`."""
  return nets.Mapper(z_dim=config.model.z_dim, hidden=tuple(config.model.mapper_hidden))


def init_style_encoder(module: nets.StyleEncoder, key: jax.Array) -> dict:
  """Initial parameters of a style encoder."""
  return module.init(key, _dummy())['params']


def init_generator(module: nets.Generator, key: jax.Array, z_dim: int) -> dict:
  """Initial parameters of a generator for codes of length `z_dim`."""
  return module.init(key, _dummy(), jnp.zeros((1, z_dim)))['params']


def init_discriminator(module: nets.MultiScaleDiscriminator, key: jax.Array) -> dict:
  """Initial parameters of a conditional discriminator."""
  return module.init(key, _dummy(), _dummy())['params']


def _dummy() -> jax.Array:
  return jnp.zeros((1, _DUMMY_SIZE, _DUMMY_SIZE, 3))


def weighted_sum(weights: Mapping[str, float], terms: Mapping[str, jax.Array]) -> jax.Array:
  """Weighted sum of loss terms, a float32 scalar; zero if there are none."""
  return sum((weights[name] * term for name, term in terms.items()), jnp.float32(0.0))
