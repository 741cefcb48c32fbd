"""The training state of every method.

It is one pytree, so all methods share the loop, the checkpoints and the sharding.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from step_jax.train import optimizers

# Name in `TrainState.stats` of the statistics of the moving average of a network.
AVERAGED = 'averaged_{}'

Params = dict[str, Any]
Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
  """Everything that training changes. There is no random state: keys derive from seed and `step`.

  Attributes:
    step: number of completed steps, int32 scalar.
    params: network -> parameter tree.
    ema: moving averages of the networks that are used after training.
    opt: optimizer -> its state.
    stats: everything else that a step changes: statistics of batch and spectral norm by network
      (those of averages are named `AVERAGED`), running means, the latest value of a lazy loss term.
      None if there is nothing, so that checkpoints without it can be loaded.
  """

  step: jax.Array
  params: Params
  ema: Params
  opt: dict[str, Any]
  stats: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """An optimizer of one or more networks.

  Attributes:
    networks: names in `TrainState.params` that it updates.
    transform: maps gradients to directions, which are multiplied by the learning rate and
      subtracted.
    learning_rate: step number -> learning rate.
  """

  networks: tuple[str, ...]
  transform: optax.GradientTransformation
  learning_rate: Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class TrainStep:
  """The training step of a stage, as pure functions.

  Attributes:
    init: `key -> TrainState`.
    train_step: `(state, batch, frozen) -> (state, metrics)`. `frozen` has everything that is not
      trained (feature networks, codes). Metrics are float32 scalars.
  """

  init: Callable[[jax.Array], TrainState]
  train_step: Callable[[TrainState, Mapping, Mapping], tuple[TrainState, Metrics]]

  def jitted_step(self, shardings: TrainState | None = None) -> Callable:
    """Compiles `train_step`; the buffers of the state are donated.

    Args:
      shardings: shardings of the state; None: replicated.
    """
    return jax.jit(self.train_step, donate_argnums=0, out_shardings=(shardings, None))


def create(
  params: Params, optimizers_: Mapping[str, Optimizer], averaged: tuple[str, ...] = (), **fields
) -> TrainState:
  """Creates a state at step 0.

  Averages start from the parameters, in separate buffers, so that steps can donate both.
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
  """Updates the networks of one optimizer, but not the step count and the averages.

  If all gradients are computed at one state, consecutive calls make a simultaneous update: networks
  of two optimizers get the sum of both changes. If gradients are computed after the previous
  update, the updates alternate. An update under `jax.lax.cond` is lazy.

  Args:
    state: state before the update.
    name: name of the optimizer in `state.opt`.
    optimizer: the optimizer.
    grads: network -> gradients, for the networks of the optimizer.
  """
  params = {network: state.params[network] for network in optimizer.networks}
  rate = optimizer.learning_rate(state.step)
  directions, moved = optimizer.transform.update(grads, state.opt[name], params)
  params = jax.tree.map(lambda p, d: p - rate * d, params, directions)
  return state.replace(params={**state.params, **params}, opt={**state.opt, name: moved})


def finish(
  state: TrainState, ema_decay: jax.Array | float = 0.0, stats: dict[str, Any] | None = None
) -> TrainState:
  """Completes a step: increments the step count and updates the averages.

  Args:
    state: state after all updates of the step.
    ema_decay: weight of the old average.
    stats: new `state.stats`; None: unchanged.
  """
  params = {name: state.params[name] for name in state.ema}
  ema = optimizers.ema_update(state.ema, params, ema_decay)
  return state.replace(step=state.step + 1, ema=ema, stats=state.stats if stats is None else stats)


def gradient_norms(grads: Mapping[str, Mapping[str, Params]]) -> Metrics:
  """Euclidean norms of gradients by network, for the log: `grad_norm/<network>`, float32 scalars.

  Args:
    grads: name of the optimizer -> network -> gradients. If several optimizers train a network,
      its gradients are added.
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
  """A complete simultaneous step: `update` for every optimizer, then `finish`.

  Args:
    state: state before the step.
    optimizers_: name -> optimizer.
    grads: name of the optimizer -> gradients of its networks, all at this state.
    ema_decay: weight of the old average.
  """
  for name, optimizer in optimizers_.items():
    state = update(state, name, optimizer, grads[name])
  return finish(state, ema_decay)
