"""Least-squares GAN losses (Mao et al. 2017) over patch logits."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

REAL = 1.0
FAKE = 0.0


def lsgan_loss(logits: jax.Array | Sequence[jax.Array], target: float) -> jax.Array:
  """Mean squared distance of the logits from `target` (1 real, 0 generated).

  Args:
    logits: an array of any shape, or one per scale, whose losses are summed.
    target: desired value of the logits.

  Returns:
    float32 scalar, at least 0.
  """
  scales = logits if isinstance(logits, Sequence) else [logits]
  return sum(jnp.mean(jnp.square(scale.astype(jnp.float32) - target)) for scale in scales)


def average_with_zero(terms: Sequence[jax.Array]) -> jax.Array:
  """`sum(terms) / (len(terms) + 1)`, a scalar: how the original averages its GAN terms.

  Its lists of terms start with a zero, so the only term of the default run counts half. This is
  kept because the published loss weights and learning rates were tuned with it.
  """
  return sum(terms, jnp.float32(0)) / (len(terms) + 1)
