"""Adam as TensorFlow and as PyTorch compute it, and StEP's schedule of learning rates."""

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
    mu: first moments, a tree as the gradients; None when `b1` is zero, as they equal the gradients.
    nu: second moments, likewise.
  """

  count: jax.Array
  mu: Any
  nu: Any


def scale_by_tf_adam(b1: float, b2: float) -> optax.GradientTransformation:
  """Adam's direction with epsilon *outside* the bias correction, as in TensorFlow 1.

  `sqrt(1 - b2^t) / (1 - b1^t) * mu / (sqrt(nu) + 1e-8)`; Kingma and Ba 2015, the form that ends
  section 2. Compared to `optax.scale_by_adam` early steps are damped where gradients are tiny. With
  `b1 = 0` no first moment is kept.
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
  """Adam's direction as PyTorch computes it, epsilon 1e-8 outside of the root.

  With `b1 = 0` the first moment would equal the gradient, and none is kept.
  """
  if b1:
    return optax.scale_by_adam(b1, b2, eps=ADAM_EPSILON)
  return optax.scale_by_rms(b2, eps=ADAM_EPSILON, eps_in_sqrt=False, bias_correction=True)


def lr_factor(step: jax.Array, batch_size: int, fixed_kimg: float, total_kimg: float) -> jax.Array:
  """What all learning rates are multiplied by at a step: constant, then falling linearly.

  One until `fixed_kimg` thousand pictures were seen, then `1 - (kimg - fixed) / (total - fixed +
  10)`, never below `10 / (total - fixed + 10)`; kimg counts whole thousands, as the original does.

  Args:
    step: int32 scalar, steps done before this one.
    batch_size: pictures a step.
    fixed_kimg, total_kimg: thousands of pictures; equal, or total below fixed, means no decay.

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
  """Step number -> `rate`, decayed by `lr_factor` as `config.schedule` says."""
  lengths = config.batch_size, config.schedule.fixed_kimg, config.schedule.total_kimg
  return lambda step: rate * lr_factor(step, *lengths)


def ema_decay(step: jax.Array, decay: float) -> jax.Array:
  """The weight of the old average at a step: `min(decay, (1 + step) / (10 + step))`, rising.

  A constant 0.999, the original's, still shows a third of the initial values after 1,000 steps; the
  two agree from step 9,000 on.
  """
  step = step.astype(jnp.float32)
  return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def ema_update(ema: Any, params: Any, decay: jax.Array | float) -> Any:
  """Moving average `decay * ema + (1 - decay) * params`, exact where both are equal already."""
  return jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
