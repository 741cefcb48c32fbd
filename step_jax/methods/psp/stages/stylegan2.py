"""Stage 1: trains StyleGAN2, and compares generated with training images."""

from collections.abc import Iterator
import functools
import itertools
import logging

import jax
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import data, files
from step_jax.data import augment, pipeline
from step_jax.evaluate import parallel, realism, resizing, scores
from step_jax.infer import gallery
from step_jax.methods.psp import functions, inputs, networks, train_stylegan2
from step_jax.train import loop
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

# Rows and columns of the sample grid.
_ROWS, _COLUMNS = 4, 8
# Batch size of a device for generated images and for features.
_EVAL_BATCH = 8


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Training:
  """Creates the training of StyleGAN2."""
  del workdir
  mesh_lib.check_batch_size(config.batch_size)
  opened = data.open_config(config.data)
  opened.check_crop('train', config.data.crop)
  return stage_lib.Training(
    step=train_stylegan2.make(config),
    batches=functools.partial(_train_batches, config, opened),
    num_steps=stage_lib.num_steps(config),
    items_per_step=config.batch_size,
    evaluate=_evaluator(config, opened, mesh),
  )


def check(config: ml_collections.ConfigDict) -> None:
  """Checks combinations of fields.

  Raises:
    ConfigError: see `check_images`; or the batch cannot be split into groups.
  """
  check_images(config)
  batch = config.batch_size
  config_lib.demand(
    batch < 4 or batch % 4 == 0,
    'batch_size',
    batch,
    'the discriminator compares images in groups of 4: use a multiple of 4, or less than 4',
  )


def check_images(config: ml_collections.ConfigDict) -> None:
  """Checks fields for both stages.

  Raises:
    ConfigError: crops are not squares of a power of two, or their size differs from that of
      generated images; or the compute type is not float32.
  """
  crop = config.data.crop
  side = crop[0]
  config_lib.demand(
    crop[0] == crop[1] and side >= 8 and not side & (side - 1),
    'data.crop',
    crop,
    'StyleGAN2 needs squares of a power of two: set --size to one',
  )
  size = config.model.size
  config_lib.demand(
    size in (0, side) or config.stage != 'stylegan2',
    'model.size',
    size,
    f'training images have {side} px: leave it at 0, or set data.crop to it',
  )
  config_lib.demand(
    config.dtype == 'float32', 'dtype', config.dtype, 'StyleGAN2 and pSp need float32'
  )


def abstract(config: ml_collections.ConfigDict, size: tuple[int, int]) -> stage_lib.AbstractStep:
  """Shapes of the training step on images of `size` (height, width)."""
  step = train_stylegan2.make(config)
  return stage_lib.AbstractStep.of(step, stage_lib.images(config, size, ('image',)))


def _train_batches(config, opened: data.PairSet, start: int) -> Iterator[dict[str, np.ndarray]]:
  split = opened.split('train')
  _, target = data.sides(opened, config.data.direction)

  def load(index, rng):
    images = {'image': split[index][target]}
    augmented = augment.augment(images, rng, config.data.crop, (), config.data.flip)
    return {'image': np.ascontiguousarray(augmented['image'])}

  return pipeline.train_batches(
    np.arange(len(split)), load, config.batch_size, config.seed, start, stage_lib.shard()
  )


def _evaluator(config, opened: data.PairSet, mesh):
  """Compares the distributions of generated images and of as many training images.

  The scores are `val_frechet` and `val_kernel`: FID and KID if the weights of Inception are
  available, otherwise the same distances on the features of another network.
  """
  generator = networks.generator(config)
  judge = realism.judge()
  log.info('val_frechet is %s', judge.frechet.format(**judge.blanks))
  judge_params = mesh_lib.put_replicated(mesh, judge.features.params)
  crop = inputs.eval_crop(config)
  split = opened.split('train')
  _, target = data.sides(opened, config.data.direction)
  count = min(config.eval_pictures, len(split))
  z = np.random.default_rng(config.seed).standard_normal((count, config.model.style_dim))

  def draw(variables, batch):
    styles = functions.random_styles(generator, variables, batch['z'])
    return {'image': functions.draw(generator, variables, styles)}

  def describe(params, batch):
    return {'features': judge.describe(params, batch['image'])}

  draw, describe = (parallel.over_devices(mesh, function) for function in (draw, describe))

  def stream(function, constants, examples):
    batches = pipeline.eval_batches(examples, _EVAL_BATCH, mesh.size)
    return scores.in_order(functools.partial(function, constants), batches)

  def features(images):
    resized = ({'image': resizing.resize_for_inception(image, size=judge.size)} for image in images)
    return (row['features'] for row in stream(describe, judge_params, resized))

  @functools.cache
  def real() -> list[np.ndarray]:
    examples = pipeline.eval_examples(split, {'image': target}, crop, count)
    return list(features(example['image'] for example in examples))

  def evaluate(state):
    variables = functions.variables(vars(state))
    images = (
      row['image'] for row in stream(draw, variables, ({'z': row.astype(np.float32)} for row in z))
    )
    shown = list(itertools.islice(images, _ROWS * _COLUMNS))
    frechet, kernel = realism.distances(real(), features(itertools.chain(shown, images)))
    rows = [shown[i : i + _COLUMNS] for i in range(0, len(shown), _COLUMNS)]
    return loop.Evaluation(
      {'val_frechet': frechet, 'val_kernel': kernel.value}, {'generated': gallery.grid(rows)}
    )

  return evaluate if count >= 3 else None
