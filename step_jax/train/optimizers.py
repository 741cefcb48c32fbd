"""Adam as in TensorFlow and PyTorch, the learning rate schedule of StEP, and moving averages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

ADAM_EPSILON = 1e-8


class AdamState(NamedTuple):
  """State of `scale_by_tf_adam`.

  Attributes:
    count: int32 scalar, steps taken.
    mu: first moments, a tree like the gradients; None if `b1` is zero: they equal the gradients.
    nu: second moments, a tree like the gradients.
  """

  count: jax.Array
  mu: Any
  nu: Any


def scale_by_tf_adam(b1: float, b2: float) -> optax.GradientTransformation:
  """Adam's direction with epsilon *outside* the bias correction, as in TensorFlow 1.

  `sqrt(1 - b2^t) / (1 - b1^t) * mu / (sqrt(nu) + 1e-8)`; Kingma and Ba 2015, the form that ends
  section 2. Compared to `optax.scale_by_adam`, early steps with tiny gradients are smaller. With
  `b1 = 0`, no first moment is stored.
  """

  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AdamState(jnp.zeros([], jnp.int32), zeros if b1 else None, jax.tree.map(jnp.copy, zeros))

  def update(grads, state, params=None):
    del params
    count = state.count + 1
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads) if b1 else None
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
    t = count.astype(jnp.float32)
    correction = jnp.sqrt(1 - b2**t) / (1 - b1**t)
    directions = jax.tree.map(
      lambda m, v: correction * m / (jnp.sqrt(v) + ADAM_EPSILON), mu if b1 else grads, nu
    )
    return directions, AdamState(count, mu, nu)

  return optax.GradientTransformation(init, update)


def scale_by_torch_adam(b1: float, b2: float) -> optax.GradientTransformation:
  """Adam's direction as in PyTorch, with epsilon 1e-8 outside the square root.

  With `b1 = 0`, the first moment equals the gradient and is not stored.
  """
  if b1:
    return optax.scale_by_adam(b1, b2, eps=ADAM_EPSILON)
  return optax.scale_by_rms(b2, eps=ADAM_EPSILON, eps_in_sqrt=False, bias_correction=True)


def lr_factor(step: jax.Array, batch_size: int, fixed_kimg: float, total_kimg: float) -> jax.Array:
  """Factor of all learning rates at a step: constant, then linear decay.

  The factor is 1 for the first `fixed_kimg` thousand images, then `1 - (kimg - fixed) / (total -
  fixed + 10)`, but at least `10 / (total - fixed + 10)`; kimg counts whole thousands, as in the
  original.

  Args:
    step: number of completed steps, int32 scalar.
    batch_size: images per step.
    fixed_kimg, total_kimg: thousands of images; if total is not above fixed, there is no decay.

  Returns:
    float32 scalar in (0, 1].
  """
  if total_kimg <= fixed_kimg:
    return jnp.float32(1.0)
  kimg = (step * batch_size) // 1000
  span = total_kimg - fixed_kimg + 10.0
  falling = jnp.maximum(1.0 - (kimg - fixed_kimg) / span, 10.0 / span)
  return jnp.where(kimg > fixed_kimg, falling, 1.0).astype(jnp.float32)


def schedule(config: ml_collections.ConfigDict, rate: float) -> Callable[[jax.Array], jax.Array]:
  """Step number -> `rate`, decayed by `lr_factor` according to `config.schedule`."""
  lengths = config.batch_size, config.schedule.fixed_kimg, config.schedule.total_kimg
  return lambda step: rate * lr_factor(step, *lengths)


def ema_decay(step: jax.Array, decay: float) -> jax.Array:
  """Weight of the old average at a step: `min(decay, (1 + step) / (10 + step))`.

  With the constant 0.999 of the original, a third of the initial values remains after 1,000 steps.
  The two are equal from step 9,000 on.
  """
  step = step.astype(jnp.float32)
  return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def ema_update(ema: Any, params: Any, decay: jax.Array | float) -> Any:
  """Moving average `decay * ema + (1 - decay) * params`; exact if both are equal."""
  return jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
