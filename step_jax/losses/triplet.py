"""The triplet loss that pre-trains the style encoder."""

import jax
import jax.numpy as jnp


def triplet_loss(
  anchor: jax.Array, positive: jax.Array, negative: jax.Array, margin: float = 0.1
) -> jax.Array:
  """`mean(max(|a - p|^2 - |a - n|^2 + margin, 0))`; StEP eq. 2, Schroff et al. 2015.

  Args:
    anchor, positive, negative: style codes `[B, Z]`; squared Euclidean distances, codes not
      normalised.
    margin: by how much a negative must be farther than a positive.

  Returns:
    float32 scalar, at least 0.
  """
  near = jnp.sum(jnp.square(anchor - positive), axis=-1)
  far = jnp.sum(jnp.square(anchor - negative), axis=-1)
  return jnp.mean(jnp.maximum(near - far + margin, 0.0))
