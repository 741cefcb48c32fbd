"""The stage of SuperStyleNet: codes of training images, training step and evaluation."""

from collections.abc import Iterator
import functools
import itertools
import logging

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import data, files, images, losses, models, weights
from step_jax.data import augment, pipeline
from step_jax.evaluate import metrics, parallel, scores
from step_jax.infer import gallery
from step_jax.methods.superstylenet import extraction, generator, networks, training
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.spse import CODE_SIZE
from step_jax.models.features import read_raw_pixels
from step_jax.train import loop
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib
from step_jax.train import state as state_lib

log = logging.getLogger(__name__)

# File in the folder of the stage with codes of training images, for sampling, and the mean codes.
BANK_FILE = 'codes.npz'
# Maximum number of images in this file: 20 MB with 19 labels.
_IN_BANK = 512
# Number of validation images in the sample grid, and of styles for each.
_SAMPLES = 4
# Batch size of a device for validation images.
_EVAL_BATCH = 8


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Training:
  """Creates the stage; extracts the style codes of all images unless they are cached.

  Raises:
    UserError: the data set has no label maps or too small images, or there is no feature network.
  """
  mesh_lib.check_batch_size(config.batch_size)
  classes = config.data.classes
  config_lib.demand(classes, 'data.classes', classes, 'give the number of labels of the label maps')
  dataset = data.open_config(config.data)
  dataset.check_crop('train', config.data.crop)
  features, frozen, label = None, {}, ''
  if config.loss.perceptual:
    net = weights.load_features(config.features.net, config.features.taps, config.features.weights)
    features, label = net.module, net.label
    # As in the original, whose feature network gets images in [-1, 1].
    frozen = mesh_lib.put_replicated(mesh, {'features': read_raw_pixels(net.params)})
  codes = {
    split: kept_codes(config, dataset, split, mesh)
    for split in ('train', 'val')
    if dataset.splits.get(split)
  }
  mean = codes['train'].mean()
  if jax.process_index() == 0:
    folder = stage_lib.stage_folder(workdir, config.stage)
    files.make_folder(folder)
    some = codes['train'].some(_IN_BANK, config.seed)
    extraction.write_bank(folder / BANK_FILE, some, mean)
  trainer = networks.trainer(config, features)
  return stage_lib.Training(
    step=state_lib.TrainStep(trainer.init, trainer.train_step),
    batches=lambda start: _train_batches(config, dataset, codes['train'], start),
    num_steps=stage_lib.num_steps(config),
    items_per_step=config.batch_size,
    features=label,
    frozen=frozen,
    evaluate=_evaluator(config, dataset, codes['val'], mean, features, frozen, mesh)
    if 'val' in codes
    else None,
  )


def check(config: ml_collections.ConfigDict) -> None:
  """Checks settings of the networks.

  Raises:
    ConfigError: a value is not valid.
  """
  upsamplings = config.model.num_upsamplings
  config_lib.demand(
    upsamplings <= generator.MOST_UPSAMPLINGS,
    'model.num_upsamplings',
    upsamplings,
    f'must be at most {generator.MOST_UPSAMPLINGS}',
  )


def abstract(config: ml_collections.ConfigDict, size: tuple[int, int]) -> stage_lib.AbstractStep:
  """Shapes of the training step on images of `size` (height, width)."""
  features = models.FEATURE_NETS[config.features.net](taps=tuple(config.features.taps))
  # Shapes of parameters do not depend on the size of images.
  dummy = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  params = jax.eval_shape(features.init, jax.random.key(0), dummy)['params']
  trainer = networks.trainer(config, features if config.loss.perceptual else None)
  batch = config.batch_size
  shapes = stage_lib.images(config, size, ('image',)) | {
    'labels': jax.ShapeDtypeStruct((batch, *size), jnp.uint8),
    'codes': jax.ShapeDtypeStruct((batch, config.data.classes, CODE_SIZE), jnp.float32),
  }
  frozen = {'features': params} if config.loss.perceptual else {}
  step = state_lib.TrainStep(trainer.init, trainer.train_step)
  return stage_lib.AbstractStep.of(step, shapes, frozen)


def kept_codes(
  config: ml_collections.ConfigDict, dataset: data.PairSet, split: str, mesh: jax.sharding.Mesh
) -> extraction.KeptCodes:
  """The style codes of a split; extracts those that are not cached."""
  _, side = data.sides(dataset, config.data.direction)
  return extraction.keep(dataset, split, side, config.data.classes, config.codes.size, mesh)


def _train_batches(
  config, dataset: data.PairSet, codes: extraction.KeptCodes, start: int
) -> Iterator[dict[str, np.ndarray]]:
  settings = config.data
  split = dataset.split('train')
  _, side = data.sides(dataset, settings.direction)

  mirror = dataset.labels.mirror()

  def load(index, rng):
    example = split[int(index)]
    # Codes describe the whole image and are used for every crop.
    view = {'image': example[side], 'labels': example['labels'], 'codes': codes[int(index)].codes}
    view = augment.augment(view, rng, settings.crop)
    if settings.flip and rng.random() < 0.5:
      # Swaps the codes of left and right classes.
      return {
        'image': view['image'][:, ::-1],
        'labels': mirror[view['labels'][:, ::-1]],
        'codes': view['codes'][mirror[: settings.classes]],
      }
    return view

  return pipeline.train_batches(
    np.arange(len(split)), load, config.batch_size, config.seed, start, stage_lib.shard()
  )


def eval_examples(
  config: ml_collections.ConfigDict,
  dataset: data.PairSet,
  split: str,
  codes: extraction.KeptCodes,
  mean: RegionCodes,
  limit: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Examples of a split with their own codes and with those of the next example.

  Args:
    config: configuration of the stage.
    dataset: the data set.
    split: split of the data set.
    codes: codes of the split.
    mean: mean codes, for labels without a code in an image.
    limit: maximum number of examples; None: all.

  Yields:
    `image` uint8 `[H, W, 3]`, `labels` int `[H, W]`, raw codes `own` and `other`, `[L, 512]`.
  """
  _, side = data.sides(dataset, config.data.direction)
  roles = {'image': side, 'labels': 'labels'}
  examples = dataset.split(split)
  count = len(examples) if limit is None else min(limit, len(examples))
  loaded = pipeline.eval_examples(examples, roles, config.data.eval_crop, count)
  for i, example in enumerate(loaded):
    own, other = (codes[j].complete(mean).codes.codes for j in (i, (i + 1) % count))
    yield {**example, 'own': own, 'other': other}


def _evaluator(config, dataset, codes, mean, features, frozen, mesh):
  """Reconstructs validation images from their own codes and from those of another image."""
  module = networks.generator(config)
  tap_weights = weights.tap_weights(config.features)

  def draw(variables, batch, name):
    drawn = networks.draw(module, variables, batch['labels'], batch[name])
    return images.to_uint8(drawn)

  def score(variables, frozen, batch):
    own, other = (draw(variables, batch, name) for name in ('own', 'other'))
    values = {
      'psnr': metrics.psnr(own, batch['image']),
      'psnr_other': metrics.psnr(other, batch['image']),
      'l1': metrics.l1(own, batch['image']),
    }
    if features is not None:
      taps = [
        features.apply({'params': frozen['features']}, images.to_float(x))
        for x in (own, batch['image'])
      ]
      values['perceptual'] = losses.perceptual_distance(*taps, tap_weights)
    return values

  score = parallel.over_devices(mesh, score)
  rebuild = parallel.over_devices(
    mesh, lambda variables, batch: {'own': draw(variables, batch, 'own')}
  )

  def evaluate(state):
    variables = training.trained_generator(state)
    examples = list(eval_examples(config, dataset, 'val', codes, mean, config.eval_pictures))
    batches = pipeline.eval_batches(examples, _EVAL_BATCH, mesh.size)
    values = scores.collect(functools.partial(score, variables, frozen), batches)
    grid = _grid(functools.partial(rebuild, variables), examples[:_SAMPLES], mesh.size)
    scalars = {f'val_{name}': scores.known_mean(value) for name, value in values.items()}
    return loop.Evaluation(scalars, {'styles': grid})

  return evaluate


def _grid(rebuild, examples, parts):
  """Grid: each row has an image, and its layout with the codes of all images."""
  drawn = [{**example, 'own': style['own']} for example in examples for style in examples]
  batches = pipeline.eval_batches(drawn, _EVAL_BATCH, parts)
  outputs = (row['own'] for row in scores.in_order(rebuild, batches))
  first = examples[0]['image']
  rows = [[np.full_like(first, 255), *(example['image'] for example in examples)]]
  for example in examples:
    rows.append([example['image'], *itertools.islice(outputs, len(examples))])
  return gallery.grid(rows)
