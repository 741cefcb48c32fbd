"""Converts images: uint8 in files and transfers, float32 in [-1, 1] in computations."""

import jax
import jax.numpy as jnp


def to_float(image: jax.Array) -> jax.Array:
  """uint8 0..255 to float32 in [-1, 1]: `x * 2 / 255 - 1`, any shape; floats are not scaled."""
  if jnp.issubdtype(image.dtype, jnp.floating):
    return jnp.asarray(image, jnp.promote_types(image.dtype, jnp.float32))
  return image.astype(jnp.float32) * (2.0 / 255.0) - 1.0


def pad_to_multiple(image: jax.Array, multiple: int) -> jax.Array:
  """Repeats the last row and column until height and width are multiples of `multiple`.

  `[B, H, W, C]`.
  """
  height, width = image.shape[1:3]
  if not (height % multiple or width % multiple):
    return image
  margins = ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0))
  return jnp.pad(image, margins, mode='edge')


def to_uint8(image: jax.Array, truncate: bool = False) -> jax.Array:
  """Float32 in [-1, 1], clipped, to uint8 0..255, any shape.

  Args:
    image: image in [-1, 1].
    truncate: round down, as in the metrics of the reference of pSp, instead of to nearest.
  """
  if truncate:
    return jnp.floor(jnp.clip((image + 1) / 2, 0, 1) * 255).astype(jnp.uint8)
  return jnp.clip(jnp.rint(image * 127.5 + 127.5), 0, 255).astype(jnp.uint8)
