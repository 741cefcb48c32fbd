"""Stage 4 put together: style codes of the training pictures, and how well samples cover others."""

import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import data, files
from step_jax.data import pipeline
from step_jax.evaluate import scores
from step_jax.infer import functions
from step_jax.methods import mapper, networks
from step_jax.stages import stage as stage_lib
from step_jax.train import loop

CODES_FILE = 'codes.npy'
_ENCODE_BATCH = 8


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Stage:
  """Makes stage 4 ready.

  Encodes the training pictures and keeps their codes in the stage's folder.
  """
  codes = {split: _encode_split(config, workdir, mesh, split) for split in ('train', 'val')}
  if jax.process_index() == 0:
    folder = stage_lib.stage_folder(workdir, config.stage)
    files.make_folder(folder)
    files.write_array(folder / CODES_FILE, codes['train'])
  rng = np.random.default_rng(config.seed)
  used = rng.permutation(codes['train'])[: config.imle.max_codes]
  return stage_lib.Stage(
    method=mapper.make(config, len(used)),
    batches=lambda start: itertools.repeat({}),
    num_steps=config.schedule.epochs,
    items_per_step=len(used),
    frozen={'codes': used},
    evaluate=_evaluator(config, codes),
  )


def _encode_split(config, workdir, mesh, split: str) -> np.ndarray:
  """Style codes `[N, Z]` of the targets of a split, by the averaged encoder of the stage before."""
  found = data.open_config(config.data)
  _, target = data.sides(found, config.data.direction)
  encoder = networks.style_encoder(config)
  like = jax.eval_shape(lambda: networks.init_style_encoder(encoder, jax.random.key(0)))
  before = stage_lib.stage_folder(workdir, config.init_from)
  params = stage_lib.load_networks(before, {'ema': {'style_encoder': like}}, mesh)['ema']
  encode = jax.jit(lambda params, pictures: {'z': functions.encode(encoder, params, pictures)})
  examples = pipeline.eval_examples(found.split(split), {'target': target}, config.data.eval_crop)
  batches = pipeline.eval_batches(examples, _ENCODE_BATCH)
  return scores.collect(lambda batch: encode(params, batch['target']), batches)['z']


def _evaluator(config, codes):
  """Mean distance of held-out codes to the nearest of ten times as many samples.

  For samples of the mapper, and of the Gaussian with the mean and covariance of the training codes.
  """
  module = networks.mapper(config)
  held = jnp.asarray(codes['val'])
  mean, spread = np.mean(codes['train'], axis=0), np.cov(codes['train'].T)
  shape = (10 * len(held), config.model.z_dim)

  @jax.jit
  def distance(samples):
    nearest = samples[mapper.nearest_samples(held, samples)]
    return jnp.mean(jnp.linalg.norm(held - nearest, axis=1))

  def evaluate(state):
    key = jax.random.key(config.seed)
    mapped = module.apply({'params': state.params['mapper']}, jax.random.normal(key, shape))
    drawn = jax.random.multivariate_normal(key, mean, spread, shape[:1], method='svd')
    return loop.Evaluation(
      {
        'val_mapper_distance': float(distance(mapped)),
        'val_gaussian_distance': float(distance(drawn)),
      }
    )

  return evaluate
