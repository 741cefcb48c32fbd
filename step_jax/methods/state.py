"""What every method trains.

One pytree, so that one loop, one checkpoint and one sharding rule serve all.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from step_jax.methods import optimizers

Params = dict[str, Any]
Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
  """Everything that a run changes; no randomness, since keys derive from the seed and `step`.

  Attributes:
    step: int32 scalar, steps done.
    params: network -> parameter tree (`style_encoder`, `generator`, `discriminator`, `mapper`, …).
    ema: moving averages of those networks that are used after training.
    opt: optimiser -> its state.
    latents: IMLE's current pairing `[N, Z]` (mapper alone), else None.
  """

  step: jax.Array
  params: Params
  ema: Params
  opt: dict[str, Any]
  latents: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """An optimiser of some networks.

  Attributes:
    networks: names in `TrainState.params` that it updates.
    transform: gradients to directions.
    learning_rate: step number -> rate.
  """

  networks: tuple[str, ...]
  transform: optax.GradientTransformation
  learning_rate: Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Method:
  """How a stage trains, as pure functions.

  Attributes:
    init: `key -> TrainState`.
    train_step: `(state, batch, frozen) -> (state, metrics)`; `frozen` holds what is not trained
      (feature nets, codes). Metrics are float32 scalars.
  """

  init: Callable[[jax.Array], TrainState]
  train_step: Callable[[TrainState, Mapping, Mapping], tuple[TrainState, Metrics]]

  def jitted_step(self, shardings: TrainState | None = None) -> Callable:
    """`train_step` as training runs it: compiled, and given the state's buffers.

    Args:
      shardings: of the state, where it is not copied to every device.
    """
    return jax.jit(self.train_step, donate_argnums=0, out_shardings=(shardings, None))


def create(
  params: Params, optimizers_: Mapping[str, Optimizer], averaged: tuple[str, ...] = (), **fields
) -> TrainState:
  """A state at step 0.

  Averages start at the parameters, in buffers of their own so that steps may donate them.
  """
  pick = lambda names: {name: params[name] for name in names}
  return TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema=jax.tree.map(jnp.copy, pick(averaged)),
    opt={name: opt.transform.init(pick(opt.networks)) for name, opt in optimizers_.items()},
    **fields,
  )


def apply_gradients(
  state: TrainState,
  optimizers_: Mapping[str, Optimizer],
  grads: Mapping[str, Params],
  ema_decay: jax.Array | float = 0.0,
) -> TrainState:
  """One simultaneous update: all optimisers move from the same point, then averages follow.

  Networks that two optimisers share receive the sum of both moves.

  Args:
    state: before the step.
    optimizers_: name -> optimiser.
    grads: name of the optimiser -> gradients of its networks.
    ema_decay: weight of the old average.
  """
  params, opt = dict(state.params), {}
  for name, optimizer in optimizers_.items():
    rate = optimizer.learning_rate(state.step)
    directions, opt[name] = optimizer.transform.update(grads[name], state.opt[name])
    for network in optimizer.networks:
      params[network] = jax.tree.map(
        lambda p, d: p - rate * d,  # noqa: B023
        params[network],
        directions[network],
      )
  ema = optimizers.ema_update(state.ema, {name: params[name] for name in state.ema}, ema_decay)
  return state.replace(step=state.step + 1, params=params, ema=ema, opt=opt)
