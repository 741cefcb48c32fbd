"""The stage: data, training step and evaluation."""

import jax
import jax.numpy as jnp
import numpy as np

from mosaic import run as run_lib
from mosaic import step as step_lib
from step_jax import config as config_lib
from step_jax import data
from step_jax.data import augment, pipeline
from step_jax.evaluate import parallel, scores
from step_jax.train import loop
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib


def check(config):
  config_lib.demand(
    config.loss.l1 or config.loss.r1, 'loss.l1', config.loss.l1, 'nothing is left to train'
  )


def build(config, workdir, mesh):
  mesh_lib.check_batch_size(config.batch_size)
  found = data.open_config(config.data)
  roles = data.roles(found, config.data.direction)
  step = step_lib.make(config)
  warm_start, warm_stats = stage_lib.warm_start(config, workdir, step, mesh)
  train = found.split('train')

  def load(index, rng):
    example = train[int(index)]
    pair = {role: example[roles[role]] for role in ('target', 'labels')}
    return augment.augment(pair, rng, config.data.crop)

  def batches(start):
    return pipeline.train_batches(
      np.arange(len(train)), load, config.batch_size, config.seed, start, stage_lib.shard()
    )

  def score(variables, batch):
    made = run_lib.generate(
      config,
      variables,
      batch['labels'],
      run_lib.encode(config, batch['target'], batch['labels']),
    )
    difference = jnp.abs(made.astype(jnp.float32) - batch['target'])
    return {'val_l1': jnp.mean(difference, axis=(1, 2, 3)) / 255}

  scored = parallel.over_devices(mesh, score)

  def evaluate(state):
    examples = pipeline.eval_examples(found.split('val'), roles, config.data.eval_crop)
    batches = pipeline.eval_batches(examples, 4, mesh.size)
    variables = run_lib.variables_of(state.ema, state.stats)
    values = scores.collect(lambda batch: scored(variables, batch), batches)
    return loop.Evaluation({name: float(np.mean(value)) for name, value in values.items()})

  return stage_lib.Training(
    step=step,
    batches=batches,
    num_steps=stage_lib.num_steps(config),
    items_per_step=config.batch_size,
    warm_start=warm_start,
    warm_stats=warm_stats,
    evaluate=evaluate,
  )


def abstract(config, size):
  shape = (config.batch_size, *size)
  batch = {
    'labels': jax.ShapeDtypeStruct(shape, jnp.uint8),
    'target': jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
  }
  return stage_lib.AbstractStep.of(step_lib.make(config), batch)
