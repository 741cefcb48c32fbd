"""Hinge losses of a GAN with a multi-scale discriminator."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from step_jax.losses.adversarial import ADVERSARIAL

_HINGE = ADVERSARIAL['hinge']
Scales = Sequence[Sequence[jax.Array]]


def hinge_discriminator_loss(fake: Scales, real: Scales) -> tuple[jax.Array, jax.Array]:
  """Hinge losses of the discriminator (Lim and Ye 2017), averaged over scales.

  `mean(max(0, 1 + D(fake)))` and `mean(max(0, 1 - D(real)))`.

  Args:
    fake, real: scale -> layer -> `[B, h, w, C]`; the last layer of a scale holds logits.

  Returns:
    Two float32 scalars, at least 0: of the generated and of the real images.
  """
  return _mean_of(_HINGE.fake, fake), _mean_of(_HINGE.real, real)


def hinge_generator_loss(fake: Scales) -> jax.Array:
  """Hinge loss of the generator: the mean over scales of `-mean(D)`.

  Args:
    fake: scale -> layer -> `[B, h, w, C]`; the last layer of a scale holds logits.

  Returns:
    float32 scalar.
  """
  return _mean_of(_HINGE.generator, fake)


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


def _mean_of(loss: Callable[[Sequence[jax.Array]], jax.Array], scales: Scales) -> jax.Array:
  return loss([maps[-1] for maps in scales]) / len(scales)
