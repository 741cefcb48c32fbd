"""Distances of pictures, one value a picture."""

import jax
import jax.numpy as jnp


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio in dB of uint8 pictures `[B, H, W, 3]`: float32 `[B]`.

  `10 log10(255^2 / mse)` over all pixels and channels; infinite for equal pictures.
  """
  return 10.0 * jnp.log10(255.0**2 / jnp.mean(jnp.square(_difference(x, y)), axis=(1, 2, 3)))


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean absolute difference of uint8 pictures `[B, H, W, 3]`, in parts of 255: float32 `[B]`."""
  return jnp.mean(jnp.abs(_difference(x, y)), axis=(1, 2, 3)) / 255.0


def _difference(x: jax.Array, y: jax.Array) -> jax.Array:
  # Subtracting uint8 from uint8 wraps around: |10 - 12| would be 254.
  return x.astype(jnp.float32) - y.astype(jnp.float32)
