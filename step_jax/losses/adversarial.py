"""Adversarial losses over patch logits, and R1."""

from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

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


def _mean_over_scales(
  loss: Callable[[jax.Array], jax.Array], logits: Sequence[jax.Array]
) -> jax.Array:
  return sum(jnp.mean(loss(scale.astype(jnp.float32))) for scale in logits)


class Adversarial(NamedTuple):
  """The losses of a GAN: each maps logits, one array per scale, to a float32 scalar.

  Attributes:
    real, fake: of the discriminator, on real and on generated images.
    generator: of the generator.
    certain: distance of the logits of real and generated images, from which the discriminator has
      no loss.
  """

  real: Callable[[Sequence[jax.Array]], jax.Array]
  fake: Callable[[Sequence[jax.Array]], jax.Array]
  generator: Callable[[Sequence[jax.Array]], jax.Array]
  certain: float


_towards = lambda target: functools.partial(lsgan_loss, target=target)
_hinge = lambda sign: functools.partial(
  _mean_over_scales, lambda logits: jax.nn.relu(1.0 + sign * logits)
)
# Mao et al. 2017, and Lim and Ye 2017. Losses of scales are summed.
ADVERSARIAL = {
  'least_squares': Adversarial(_towards(REAL), _towards(FAKE), _towards(REAL), 1.0),
  'hinge': Adversarial(
    _hinge(-1.0), _hinge(1.0), functools.partial(_mean_over_scales, jnp.negative), 2.0
  ),
}


def r1_penalty(discriminate: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
  """R1: mean squared gradient norm of the score of real images (Mescheder et al. 2018).

  Args:
    discriminate: images to scores, `[B, …]`, which are summed.
    images: `[B, H, W, 3]`.

  Returns:
    A scalar, `mean_b sum |dD/dx|^2`.
  """
  gradient = jax.grad(lambda x: jnp.sum(discriminate(x)))(images)
  return jnp.mean(jnp.sum(jnp.square(gradient), axis=(1, 2, 3)))


def average_with_zero(terms: Sequence[jax.Array]) -> jax.Array:
  """`sum(terms) / (len(terms) + 1)`, a scalar: how the original averages its GAN terms.

  Its lists of terms start with a zero, so the only term of the default run counts half. This is
  kept because the published loss weights and learning rates were tuned with it.
  """
  return sum(terms, jnp.float32(0)) / (len(terms) + 1)
