"""Loss terms as pure functions: float32 in, float32 out."""

from step_jax.losses.adversarial import (
  ADVERSARIAL,
  FAKE,
  REAL,
  Adversarial,
  average_with_zero,
  lsgan_loss,
  r1_penalty,
)
from step_jax.losses.hinge import (
  feature_matching_loss,
  hinge_discriminator_loss,
  hinge_generator_loss,
)
from step_jax.losses.latent import kl_loss, l1_loss, l2_loss
from step_jax.losses.perceptual import (
  lpips,
  lpips_vector,
  perceptual_distance,
  perceptual_l1,
  perceptual_loss,
)
from step_jax.losses.style import TAP_WEIGHTS, gram_matrix, style_distance, style_vector
from step_jax.losses.triplet import triplet_loss

__all__ = [
  'ADVERSARIAL',
  'FAKE',
  'REAL',
  'Adversarial',
  'TAP_WEIGHTS',
  'average_with_zero',
  'feature_matching_loss',
  'gram_matrix',
  'hinge_discriminator_loss',
  'hinge_generator_loss',
  'kl_loss',
  'l1_loss',
  'l2_loss',
  'lpips',
  'lpips_vector',
  'lsgan_loss',
  'perceptual_distance',
  'perceptual_l1',
  'perceptual_loss',
  'r1_penalty',
  'style_distance',
  'style_vector',
  'triplet_loss',
]
