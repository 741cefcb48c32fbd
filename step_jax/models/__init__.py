"""Networks as pure Flax modules: mathematics only, no I/O, no configuration, no weights on disk."""

from step_jax.models.discriminator import MultiScaleDiscriminator
from step_jax.models.features import (
  FEATURE_NETS,
  VGG16,
  VGG19,
  AlexNet,
  FeatureNet,
  SqueezeNet11,
)
from step_jax.models.generator import Generator
from step_jax.models.mapper import Mapper
from step_jax.models.style_encoder import StyleEncoder

__all__ = [
  'AlexNet',
  'FEATURE_NETS',
  'FeatureNet',
  'Generator',
  'Mapper',
  'MultiScaleDiscriminator',
  'SqueezeNet11',
  'StyleEncoder',
  'VGG16',
  'VGG19',
]
