"""Losses on style codes."""

import jax
import jax.numpy as jnp


def kl_loss(mean: jax.Array, logvar: jax.Array) -> jax.Array:
  """KL divergence of N(mean, exp(logvar)) from N(0, I), *summed* over batch and dimensions.

  Args:
    mean, logvar: `[B, Z]`.

  Returns:
    float32 scalar: sum of `(mean^2 + exp(logvar) - 1 - logvar) / 2`; Kingma and Welling 2014, app.
      B.
  """
  return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)


def l2_loss(z: jax.Array) -> jax.Array:
  """Mean square of style codes `[B, Z]`, a float32 scalar; keeps codes near the origin."""
  return jnp.mean(jnp.square(z))


def l1_loss(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean absolute difference of two arrays (images or codes) of one shape, a float32 scalar."""
  return jnp.mean(jnp.abs(x - y))
