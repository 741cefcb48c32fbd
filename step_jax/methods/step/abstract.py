"""What a training step takes, by shape alone: to compile, count or feed one without any data."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from step_jax import models
from step_jax.methods.step.steps import pretrain, translate
from step_jax.methods.step.steps.plan import Plan
from step_jax.train import state

# Any size does to shape the parameters of a feature net.
_PROBE_SIZE = 64


@dataclasses.dataclass(frozen=True)
class AbstractStep:
  """A method of pictures and the shapes of what its step takes.

  Attributes:
    method: its `train_step` takes the three that follow.
    state: a `TrainState` of `jax.ShapeDtypeStruct`.
    batch: role -> uint8 `[B, H, W, 3]`.
    frozen: parameters of the feature net, where the method has one.
  """

  method: state.Method
  state: state.TrainState
  batch: Mapping[str, jax.ShapeDtypeStruct]
  frozen: Mapping[str, Any]


def abstract_step(config: ml_collections.ConfigDict, size: tuple[int, int]) -> AbstractStep:
  """The step that a configuration asks for, of the stages 1 to 3.

  Args:
    config: as `configs/<stage>.py` gives it.
    size: height and width of the pictures.
  """
  picture = jax.ShapeDtypeStruct((config.batch_size, *size, 3), jnp.uint8)
  if config.method == 'pretrain':
    method, frozen = pretrain.make(config), {}
    roles = ('anchor', 'positive', 'negative')
  else:
    features = models.FEATURE_NETS[config.features.net](taps=tuple(config.features.taps))
    method = translate.make(config, features)
    dummy = jnp.zeros((1, _PROBE_SIZE, _PROBE_SIZE, 3))
    params = jax.eval_shape(lambda: features.init(jax.random.key(0), dummy)['params'])
    frozen = {'features': params}
    roles = ('source', 'target', *(('source_b', 'target_b') if Plan.of(config).cycle else ()))
  return AbstractStep(
    method=method,
    state=jax.eval_shape(method.init, jax.random.key(0)),
    batch={role: picture for role in roles},
    frozen=frozen,
  )
