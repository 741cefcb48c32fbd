"""A stage that compiles fast, for faults in real runs with a state of a few numbers."""

import itertools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from step_jax import methods
from step_jax.train import checkpoint, loop, mesh
from step_jax.train import stage as stage_lib
from step_jax.train import state as state_lib


def state_of(step: jax.Array, w: jax.Array) -> state_lib.TrainState:
  return state_lib.TrainState(step=step, params={'net': {'w': w}}, ema={}, opt={})


def make_config(**fields) -> ConfigDict:
  config = ConfigDict(
    dict(
      stage='toy',
      method='toy',
      arg='',
      seed=0,
      dtype='float32',
      batch_size=2,
      optimizer=dict(lr=0.5, b1=0.9),
      schedule=dict(total_kimg=10.0),
      every=dict(log=1, checkpoint=2, evaluate=4),
      best_metric='score',
    )
  )
  config.update_from_flattened_dict(fields)
  return config


def build(config, workdir, mesh) -> stage_lib.Training:
  del workdir, mesh

  def init(key):
    return state_of(jnp.zeros([], jnp.int32), jax.random.normal(key, (40, 50)))

  def train_step(state, batch, frozen):
    del frozen
    w = state.params['net']['w'] * 0.9 + config.optimizer.lr * jnp.mean(batch['x'])
    return state_of(state.step + 1, w), {'loss': jnp.mean(w)}

  def batches(start):
    for step in itertools.count(start):
      hook(step)
      yield {'x': np.full((2,), np.sin(step), np.float32)}

  def evaluate(state):
    score = float(jnp.abs(jnp.mean(state.params['net']['w'])))
    return loop.Evaluation({'score': score}, {'picture': np.zeros((8, 8, 3), np.uint8)})

  return stage_lib.Training(
    step=state_lib.TrainStep(init, train_step),
    batches=batches,
    num_steps=int(config.schedule.total_kimg),
    items_per_step=2,
    evaluate=evaluate,
  )


def hook(step: int) -> None:
  """Called when the batch of a step is read; tests replace it by faults."""


def train(workdir, change_config=False, **fields):
  return methods.train(make_config(**fields), workdir, change_config)


def final(folder) -> tuple[int, np.ndarray]:
  """Step and weights of the newest intact checkpoint."""
  sharding = mesh.replicated(mesh.make_mesh())
  like = {'params': {'net': {'w': jax.ShapeDtypeStruct((40, 50), jnp.float32, sharding=sharding)}}}
  checkpoints = checkpoint.Checkpoints(folder, create=False)
  step, found = checkpoints.restore_newest(like)
  checkpoints.close()
  return step, np.asarray(found['params']['net']['w'])


methods.register(
  methods.Method('toy', 'a few numbers', (methods.Stage('toy', __name__),), translating=(), run='')
)
