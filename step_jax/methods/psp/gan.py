"""Losses and optimizer settings of StyleGAN2's training (Karras et al. 2020, sec. 3 and app. B)."""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Half-life of the moving average of parameters: 10,000 images, with the paper's batch size of 32.
EMA_DECAY = 0.5 ** (32 / 10_000)
PATH_DECAY = 0.01


def discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Logistic loss: `mean softplus(-real) + mean softplus(fake)` of logits `[B, 1]`, a scalar."""
  return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def generator_loss(fake: jax.Array) -> jax.Array:
  """Non-saturating loss: `mean softplus(-fake)` of logits `[B, 1]`, a scalar."""
  return jnp.mean(jax.nn.softplus(-fake))


def path_lengths(
  synthesize: Callable[[jax.Array], jax.Array], w_plus: jax.Array, noise: jax.Array
) -> jax.Array:
  """Path lengths: norms of random products with the Jacobian of images with respect to W+.

  Args:
    synthesize: W+ to images.
    w_plus: `[B, n, D]`.
    noise: `[B, H, W, 3]` from N(0, 1).

  Returns:
    `[B]`, `sqrt(mean_layers |J^T noise / sqrt(H W)|^2)`.
  """
  noise = noise / math.sqrt(noise.shape[1] * noise.shape[2])
  gradient = jax.grad(lambda w: jnp.sum(synthesize(w) * noise))(w_plus)
  return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(gradient), axis=2), axis=1))


def path_penalty(lengths: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean squared distance of path lengths from their running mean.

  The gradient also flows through the updated mean.

  Args:
    lengths: `[B]`.
    mean: running mean, a scalar, initially 0.

  Returns:
    The penalty and the updated mean, both scalars.
  """
  mean = mean + PATH_DECAY * (jnp.mean(lengths) - mean)
  return jnp.mean(jnp.square(lengths - mean)), jax.lax.stop_gradient(mean)


class AdamSettings(NamedTuple):
  """Learning rate and decay rates of Adam."""

  learning_rate: float
  b1: float
  b2: float


def lazy(settings: AdamSettings, interval: int) -> AdamSettings:
  """Settings of Adam with lazy regularisation, an additional update every `interval` steps.

  The optimizer makes `interval + 1` updates per `interval` steps. So the learning rate is
  multiplied by `c = interval / (interval + 1)`, and decay rates are raised to the power `c`.
  """
  c = interval / (interval + 1)
  return AdamSettings(settings.learning_rate * c, settings.b1**c, settings.b2**c)
