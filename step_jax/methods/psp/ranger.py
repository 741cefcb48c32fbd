"""Ranger: rectified Adam, Lookahead and gradient centralisation, as in the reference of pSp.

Liu et al. 2020 (RAdam), Zhang et al. 2019 (Lookahead), Yong et al. 2020 (gradient centralisation).
A chain of optax transformations differs in the warm-up, the position of epsilon and the threshold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

EPSILON = 1e-5
# Below this effective sample size, updates use only the first moment.
_THRESHOLD = 5
LOOKAHEAD_STEPS = 6
LOOKAHEAD_RATE = 0.5


class RangerState(NamedTuple):
  """Number of steps, both moments, and the slow weights of Lookahead.

  The slow weights start as the parameters of the first step, which may differ from those of `init`
  after a warm start.
  """

  count: jax.Array
  mu: Any
  nu: Any
  slow: Any


def ranger(
  learning_rate: float | Callable[[jax.Array], jax.Array],
  b1: float = 0.95,
  b2: float = 0.999,
  weight_decay: float = 0.0,
  conv_only: bool = False,
) -> optax.GradientTransformation:
  """The Ranger optimizer; its updates are old minus new parameters, to be subtracted.

  The updates already include the learning rate, because Lookahead replaces parameters.

  Args:
    learning_rate: a number, or number of previous steps -> number.
    b1, b2: decay rates of the moments.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    conv_only: centralise only the gradients of convolutions, not of linear layers.
  """
  sizes, rectified_from = step_sizes(b1, b2)

  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return RangerState(
      jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.copy, zeros), jax.tree.map(jnp.copy, params)
    )

  def update(grads, state, params):
    count = state.count + 1
    rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
    size = rate * jnp.asarray(sizes)[jnp.minimum(count, len(sizes) - 1)]
    grads = jax.tree_util.tree_map_with_path(lambda path, g: centralise(path, g, conv_only), grads)
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
    rectified = count >= rectified_from
    look_ahead = count % LOOKAHEAD_STEPS == 0
    first = state.count == 0

    def move(p, m, v, slow):
      divisor = jnp.where(rectified, jnp.sqrt(v) + EPSILON, 1.0)
      fast = p - weight_decay * rate * p - (size * m / divisor).astype(p.dtype)
      slow = jnp.where(first, p, slow)
      slow = jnp.where(look_ahead, slow + LOOKAHEAD_RATE * (fast - slow), slow)
      return jnp.where(look_ahead, slow, fast), slow

    moved = jax.tree.map(move, params, mu, nu, state.slow)
    new, slow = (jax.tree.map(lambda _, pair: pair[i], params, moved) for i in range(2))  # noqa: B023
    return jax.tree.map(jnp.subtract, params, new), RangerState(count, mu, nu, slow)

  return optax.GradientTransformation(init, update)


def step_sizes(b1: float, b2: float) -> tuple[np.ndarray, int]:
  """Factors of the learning rate per step, counted from 1, and the first rectified step.

  They are precomputed in float64, because float32 loses the small differences of the first steps.
  The last factor also applies to all later steps.
  """
  t = np.arange(1, int(20 / (1 - b2)) + 1)
  most = 2 / (1 - b2) - 1
  samples = most - 2 * t * b2**t / (1 - b2**t)
  with np.errstate(invalid='ignore'):
    rectified = np.sqrt(
      (1 - b2**t) * (samples - 4) / (most - 4) * (samples - 2) / samples * most / (most - 2)
    )
  sizes = np.where(samples > _THRESHOLD, rectified, 1.0) / (1 - b1**t)
  # There is no step 0.
  return np.concatenate([[0.0], sizes]).astype(np.float32), int(t[samples > _THRESHOLD][0])


def centralise(path: tuple, gradient: jax.Array, conv_only: bool = False) -> jax.Array:
  """Subtracts from the gradient of a kernel its mean over all axes but the output axis.

  Kernels are `[in, out]` or `[k, k, in, out]`. Stacked kernels have another leading axis, which is
  not averaged. All other gradients are returned unchanged.

  Args:
    path: path of the leaf; kernels are named `kernel`.
    gradient: any shape.
    conv_only: do not change linear layers either.
  """
  axes = (-4, -3, -2) if gradient.ndim >= 4 else (-2,)
  if getattr(path[-1], 'key', None) != 'kernel' or (conv_only and len(axes) == 1):
    return gradient
  return gradient - jnp.mean(gradient, axis=axes, keepdims=True)
