"""Stage 1: mined triplets for training, and held-out triplets for evaluation."""

import functools
import hashlib
import logging

import jax
import ml_collections
import numpy as np

from step_jax import data, files, losses, untrusted, weights
from step_jax.data import pipeline
from step_jax.errors import ConfigError, DataError
from step_jax.evaluate import parallel, scores
from step_jax.methods.step import networks
from step_jax.methods.step.mining import table, triplets
from step_jax.methods.step.models.generator import SIZE_MULTIPLE
from step_jax.methods.step.steps import pretrain
from step_jax.train import loop
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

NEIGHBORS_FILE = 'neighbors_{}.npz'
# Number of images whose style features are computed at a time.
_MINING_BATCH = 8
# Each size takes seconds to compile, so more sizes than this are mentioned in the log.
_MANY_SIZES = 8
# Batch size of a device for validation triplets.
_EVAL_BATCH = 8


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Training:
  """Creates stage 1; mines neighbours unless the folder of the stage has them."""
  if not config.model.z_dim:
    raise ConfigError(
      'config field model.z_dim=0: pre-training learns style codes: give them a length, or start '
      'with the translate stage'
    )
  mesh_lib.check_batch_size(config.batch_size)
  pairs = data.open_config(config.data)
  _, side = data.sides(pairs, config.data.direction)
  features = weights.load_features(
    config.features.net, config.features.taps, config.features.weights
  )
  for split in ('train', 'val'):
    pairs.check_crop(split, config.data.crop)
  if any(side % SIZE_MULTIPLE for side in config.data.crop):
    log.warning(
      'data.crop=%s: the later stages need multiples of %d', tuple(config.data.crop), SIZE_MULTIPLE
    )
  loaders = {}
  for split in ('train', 'val'):
    try:
      loaders[split] = _triplet_loader(config, workdir, pairs, split, side, features)
    except DataError:
      # A few validation images may not be enough for triplets; training images must be.
      if split == 'train':
        raise
      log.warning('there are too few validation images: pre-training is not scored')
  size = pairs.splits['train']

  def batches(start):
    return pipeline.train_batches(
      np.arange(size), loaders['train'], config.batch_size, config.seed, start, stage_lib.shard()
    )

  return stage_lib.Training(
    step=pretrain.make(config),
    batches=batches,
    num_steps=stage_lib.num_steps(config),
    items_per_step=config.batch_size,
    features=features.label,
    evaluate=_evaluator(config, pairs, loaders['val'], mesh) if 'val' in loaders else None,
  )


def abstract(config: ml_collections.ConfigDict, size: tuple[int, int]) -> stage_lib.AbstractStep:
  """Shapes of the training step of stage 1 on images of `size` (height, width)."""
  return stage_lib.AbstractStep.of(
    pretrain.make(config), stage_lib.images(config, size, triplets.ROLES)
  )


def _triplet_loader(config, workdir, pairs: data.PairSet, split, side, features):
  examples = pairs.split(split)
  names = examples.names()
  groups = table.scenes(names, config.data.scene)
  counts = config.mining.num_nearest, config.mining.num_farthest
  taps = tuple(config.features.taps)
  projection, tap_weights = config.mining.projection, config.mining.tap_weights
  contents = pairs.contents(split)
  images = [(name, contents.get(name)) for name in names]
  digest = hashlib.sha256(repr((images, config.data.resize)).encode()).hexdigest()
  key = (digest, side, features.label, taps, groups, counts, projection)
  # Tables of earlier versions have equal weights and stay valid.
  key = repr(key if tap_weights == 'equal' else (*key, tap_weights))

  def batches(start):
    pictures = pipeline.eval_examples(examples, {'target': side}, (0, 0), start=start)
    return pipeline.eval_batches(pictures, min(_MINING_BATCH, len(names)))

  def mine_now(scratch):
    log.info('mining neighbours of %d %s images by style', len(names), split)
    if pairs.sizes[split] > _MANY_SIZES:
      log.info(
        'these images have %d sizes, and the feature network is compiled for each: this takes '
        'longer than for images of one size',
        pairs.sizes[split],
      )
    return table.mine(features, batches, names, *counts, groups, scratch, projection, tap_weights)

  path = stage_lib.stage_folder(workdir, config.stage) / NEIGHBORS_FILE.format(split)
  mined = table.load_or_mine(path, key, mine_now)
  if len(mined.nearest) != len(names):
    raise untrusted.damaged(path, f'not of {len(names)} pictures', table.REMEDY)
  return triplets.loader(examples, side, mined.nearest, mined.farthest, config.data.crop)


def _evaluator(config, pairs: data.PairSet, load, mesh):
  """Scores the encoder on one fixed triplet per validation image."""
  encoder = networks.style_encoder(config)
  count = pairs.splits['val']

  def score_triplets(params, batch):
    anchor, positive, negative = pretrain.encode_triplets(encoder, params, batch)
    near = ((anchor - positive) ** 2).sum(-1)
    far = ((anchor - negative) ** 2).sum(-1)
    hinge = jax.vmap(losses.triplet_loss, (0, 0, 0, None))(
      anchor, positive, negative, config.loss.margin
    )
    return {'val_triplet': hinge, 'val_triplet_accuracy': near < far}

  score = parallel.over_devices(mesh, score_triplets)

  def evaluate(state):
    examples = (load(i, np.random.default_rng([config.seed, i])) for i in range(count))
    batches = pipeline.eval_batches(examples, _EVAL_BATCH, mesh.size)
    values = scores.collect(functools.partial(score, state.params['style_encoder']), batches)
    return loop.Evaluation({name: float(np.mean(value)) for name, value in values.items()})

  return evaluate
