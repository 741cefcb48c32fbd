"""Hinge losses of a GAN with a multi-scale discriminator."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Scales = Sequence[Sequence[jax.Array]]


def hinge_discriminator_loss(fake: Scales, real: Scales) -> tuple[jax.Array, jax.Array]:
  """Hinge losses of the discriminator (Lim and Ye 2017), averaged over scales.

  `mean(max(0, 1 + D(fake)))` and `mean(max(0, 1 - D(real)))`.

  Args:
    fake, real: scale -> layer -> `[B, h, w, C]`; the last layer of a scale holds logits.

  Returns:
    Two float32 scalars, at least 0: of the generated and of the real images.
  """
  terms = lambda scales, sign: [
    jnp.mean(jax.nn.relu(1.0 + sign * maps[-1].astype(jnp.float32))) for maps in scales
  ]
  return _mean(terms(fake, 1.0)), _mean(terms(real, -1.0))


def hinge_generator_loss(fake: Scales) -> jax.Array:
  """Hinge loss of the generator: the mean over scales of `-mean(D)`.

  Args:
    fake: scale -> layer -> `[B, h, w, C]`; the last layer of a scale holds logits.

  Returns:
    float32 scalar.
  """
  return _mean([-jnp.mean(maps[-1].astype(jnp.float32)) for maps in fake])


def feature_matching_loss(fake: Scales, real: Scales) -> jax.Array:
  """Mean absolute difference of the discriminator's hidden features (Wang et al. 2018, eq. 4).

  Summed over layers and averaged over scales; no gradient flows to the features of real images.

  Args:
    fake, real: scale -> layer -> `[B, h, w, C]`; the last layer, with logits, is not used.

  Returns:
    float32 scalar, at least 0.
  """
  terms = [
    jnp.mean(jnp.abs(x.astype(jnp.float32) - jax.lax.stop_gradient(y).astype(jnp.float32)))
    for x_maps, y_maps in zip(fake, real, strict=True)
    for x, y in zip(x_maps[:-1], y_maps[:-1], strict=True)
  ]
  return sum(terms) / len(fake)


def _mean(terms: list[jax.Array]) -> jax.Array:
  return sum(terms) / len(terms)
