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

from step_jax.train import optimizers

# What the statistics of the moving average of a network are called in `TrainState.stats`.
AVERAGED = 'averaged_{}'

Params = dict[str, Any]
Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
  """Everything that a run changes; no randomness, since keys derive from the seed and `step`.

  Attributes:
    step: int32 scalar, steps done.
    params: network -> parameter tree.
    ema: moving averages of those networks that are used after training.
    opt: optimiser -> its state.
    stats: what a step changes that is neither a parameter nor an optimiser's: statistics of
      batch and spectral norm by network (those of averages are called `AVERAGED`), running means,
      the latest value of a lazy loss term. None where there is none, so that checkpoints without
      it load.
  """

  step: jax.Array
  params: Params
  ema: Params
  opt: dict[str, Any]
  stats: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """An optimiser of some networks.

  Attributes:
    networks: names in `TrainState.params` that it updates.
    transform: gradients to directions, to be multiplied by the rate and subtracted.
    learning_rate: step number -> rate.
  """

  networks: tuple[str, ...]
  transform: optax.GradientTransformation
  learning_rate: Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class TrainStep:
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


def update(
  state: TrainState, name: str, optimizer: Optimizer, grads: Mapping[str, Params]
) -> TrainState:
  """Moves the networks of one optimizer; the step is not counted and averages stay.

  Gradients that were all taken at one state and given in turn make a simultaneous update: networks
  that two optimizers share receive the sum of both moves. Gradients taken after the update before
  make an alternating one, and an update under `jax.lax.cond` a lazy one.

  Args:
    state: before the move.
    name: of the optimizer in `state.opt`.
    optimizer: what moves.
    grads: network -> gradients, for the optimizer's networks.
  """
  params = {network: state.params[network] for network in optimizer.networks}
  rate = optimizer.learning_rate(state.step)
  directions, moved = optimizer.transform.update(grads, state.opt[name], params)
  params = jax.tree.map(lambda p, d: p - rate * d, params, directions)
  return state.replace(params={**state.params, **params}, opt={**state.opt, name: moved})


def finish(
  state: TrainState, ema_decay: jax.Array | float = 0.0, stats: dict[str, Any] | None = None
) -> TrainState:
  """Ends a step: counts it and lets the averages follow.

  Args:
    state: after the step's updates.
    ema_decay: weight of the old average.
    stats: what replaces `state.stats`; None leaves it unchanged.
  """
  params = {name: state.params[name] for name in state.ema}
  ema = optimizers.ema_update(state.ema, params, ema_decay)
  return state.replace(step=state.step + 1, ema=ema, stats=state.stats if stats is None else stats)


def gradient_norms(grads: Mapping[str, Mapping[str, Params]]) -> Metrics:
  """Euclidean norms of gradients by network, for the log: `grad_norm/<network>`, float32 scalars.

  Args:
    grads: name of the optimizer -> network -> gradients. Gradients of a network that several
      optimizers train are added.
  """
  sums: dict[str, Params] = {}
  for own in grads.values():
    for network, tree in own.items():
      sums[network] = jax.tree.map(jnp.add, sums[network], tree) if network in sums else tree
  return {f'grad_norm/{network}': optax.global_norm(tree) for network, tree in sums.items()}


def apply_gradients(
  state: TrainState,
  optimizers_: Mapping[str, Optimizer],
  grads: Mapping[str, Params],
  ema_decay: jax.Array | float = 0.0,
) -> TrainState:
  """A whole simultaneous step: every optimizer's `update` with gradients of one point, `finish`.

  Args:
    state: before the step.
    optimizers_: name -> optimizer.
    grads: name of the optimizer -> gradients of its networks.
    ema_decay: weight of the old average.
  """
  for name, optimizer in optimizers_.items():
    state = update(state, name, optimizer, grads[name])
  return finish(state, ema_decay)
