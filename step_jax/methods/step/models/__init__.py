"""The networks of StEP."""

from step_jax.methods.step.models.discriminator import MultiScaleDiscriminator
from step_jax.methods.step.models.generator import Generator
from step_jax.methods.step.models.mapper import Mapper
from step_jax.methods.step.models.style_encoder import StyleEncoder

__all__ = ['Generator', 'Mapper', 'MultiScaleDiscriminator', 'StyleEncoder']
