"""Stages 2 and 3: data, warm start, and evaluation by reconstruction."""

from collections.abc import Iterator
import functools
import itertools
import logging

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import data, files, losses, models, weights
from step_jax.data import augment, pipeline
from step_jax.evaluate import parallel, scores
from step_jax.infer import gallery
from step_jax.methods.step import functions, networks
from step_jax.methods.step.models.generator import SIZE_MULTIPLE
from step_jax.methods.step.scores import health, reconstruction
from step_jax.methods.step.steps import translate
from step_jax.methods.step.steps.plan import Plan
from step_jax.train import loop
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

# Number of validation images in the sample grid, and of styles for each.
_SAMPLES = 4
# Batch size of a device for validation images.
_EVAL_BATCH = 8
_LOGGED = ('psnr', 'psnr_other', 'l1', 'perceptual')


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Training:
  """Creates stage 2, stage 3 or a baseline."""
  mesh_lib.check_batch_size(config.batch_size)
  pairs = data.open_config(config.data, paired=True)
  pairs.check_crop('train', config.data.crop)
  features = weights.load_features(
    config.features.net, config.features.taps, config.features.weights
  )
  step = translate.make(config, features.module)
  frozen = mesh_lib.put_replicated(mesh, {'features': features.params})
  warm_start, warm_stats = stage_lib.warm_start(config, workdir, step, mesh)
  return stage_lib.Training(
    step=step,
    batches=lambda start: _train_batches(config, pairs, start),
    num_steps=stage_lib.num_steps(config),
    items_per_step=config.batch_size,
    features=features.label,
    frozen=frozen,
    warm_start=warm_start,
    warm_stats=warm_stats,
    evaluate=_evaluator(config, pairs, features.module, frozen, mesh),
  )


def check(config: ml_collections.ConfigDict) -> None:
  """Checks combinations of fields.

  Raises:
    ConfigError: there is a loss on codes of length zero, or the generator does not support the size
      of crops.
  """
  if not config.model.z_dim:
    for name in ('z_l2', 'z_kl', 'z_recon', 'z_random_recon'):
      weight = config.loss[name]
      config_lib.demand(
        not weight, f'loss.{name}', weight, 'must be 0 if model.z_dim is 0: there are no codes'
      )
  config_lib.demand(
    all(side % SIZE_MULTIPLE == 0 for side in config.data.crop),
    'data.crop',
    config.data.crop,
    f'the generator needs multiples of {SIZE_MULTIPLE}',
  )


def abstract(config: ml_collections.ConfigDict, size: tuple[int, int]) -> stage_lib.AbstractStep:
  """Shapes of the training step of stages 2 and 3 on images of `size` (height, width)."""
  features = models.FEATURE_NETS[config.features.net](taps=tuple(config.features.taps))
  # Shapes of parameters do not depend on the size of images.
  dummy = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  params = jax.eval_shape(features.init, jax.random.key(0), dummy)['params']
  roles = ('source', 'target', *(('source_b', 'target_b') if Plan.of(config).cycle else ()))
  step = translate.make(config, features)
  return stage_lib.AbstractStep.of(
    step, stage_lib.images(config, size, roles), {'features': params}
  )


def _train_batches(config, pairs: data.PairSet, start: int) -> Iterator[dict[str, np.ndarray]]:
  settings = config.data
  split = pairs.split('train')
  source, target = data.sides(pairs, config.data.direction)
  suffixes = ('', '_b') if Plan.of(config).cycle else ('',)

  def load(index, rng):
    # The second pair, for swapped styles, is random and may be the same as the first one.
    indices = [index, rng.integers(len(split))]
    pictures = {}
    for suffix, i in zip(suffixes, indices, strict=False):
      example = split[int(i)]
      view = augment.augment(
        {'source': example[source], 'target': example[target]},
        rng,
        settings.crop,
        settings.rescale,
        settings.flip,
      )
      pictures |= {f'{role}{suffix}': image for role, image in view.items()}
    return pictures

  return pipeline.train_batches(
    np.arange(len(split)), load, config.batch_size, config.seed, start, stage_lib.shard()
  )


def _evaluator(config, pairs: data.PairSet, module: models.FeatureNet, frozen, mesh):
  """Reconstructs validation images with averaged weights, and shows some in the styles of others.

  Images are distributed over all devices. The batch size of a device is fixed, so that scores do
  not depend on the number of devices.

  Args:
    config: configuration of the stage.
    pairs: data set.
    module: feature network.
    frozen: `{'features': its parameters}`, on all devices.
    mesh: all devices.

  Returns:
    A function of the state, whose networks are on all devices.
  """
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  tap_weights = weights.tap_weights(config.features)
  discriminator = networks.discriminator(config)
  distance = (module, tap_weights)

  def encode_targets(params, batch):
    return {'z': functions.encode(encoder, params, batch['target'])}

  def translate_sources(params, batch):
    return {'output': functions.generate(generator, params, batch['source'], batch['z'])}

  def score_pairs(params, judges, feature_params, batch):
    rebuilt = reconstruction.rebuild(encoder, generator, params, batch)
    scores_ = reconstruction.score(*distance, feature_params, rebuilt, batch['mask'])
    signs = health.compare_styles(*distance, feature_params, rebuilt, batch['mask'])
    if 'discriminator' in judges:
      pictures = {
        'judged_real': batch['target'],
        'judged_encoded': rebuilt['own'],
        'judged_drawn': functions.generate(generator, params, batch['source'], batch['drawn']),
      }
      signs |= health.judge(discriminator, judges['discriminator'], batch['source'], pictures)
    return {**scores_, **signs, 'z': rebuilt['z']}

  encode, translate_, score = (
    parallel.over_devices(mesh, function)
    for function in (encode_targets, translate_sources, score_pairs)
  )
  source, target = data.sides(pairs, config.data.direction)
  split = pairs.split('val')
  roles = {'source': source, 'target': target}

  def collect(function, constants, examples):
    batches = pipeline.eval_batches(examples, _EVAL_BATCH, mesh.size)
    return scores.collect(functools.partial(function, *constants), batches)

  def sample_grid(params, examples, codes):
    """Grid: each row has an input, its target, and translations in the styles of all targets."""
    styled = [{'source': example['source'], 'z': z} for example in examples for z in codes]
    batches = pipeline.eval_batches(styled, _EVAL_BATCH, mesh.size)
    outputs = (
      row['output'] for row in scores.in_order(functools.partial(translate_, params), batches)
    )
    rows = [[np.full_like(examples[0]['source'], 255)] * 2 + [e['target'] for e in examples]]
    for example in examples:
      rows.append([example['source'], example['target'], *itertools.islice(outputs, len(codes))])
    return gallery.grid(rows)

  def evaluate(state):
    judges = {name: state.params[name] for name in Plan.of(config).discriminators}
    # Kept in memory, because they are used twice and are smaller than the activations of a batch.
    examples = list(
      pipeline.eval_examples(split, roles, config.data.eval_crop, config.eval_pictures)
    )
    targets = ({'target': example['target']} for example in examples)
    codes = collect(encode, (state.ema,), targets)['z']
    drawn = health.draw_like(codes, config.seed)
    styled = ({**example, 'drawn': z} for example, z in zip(examples, drawn, strict=True))
    values = collect(score, (state.ema, judges, frozen['features']), styled)
    measured = {name: scores.known_mean(values[name]) for name in _LOGGED}
    measured |= health.summarize(values)
    certain = losses.ADVERSARIAL[config.loss.adversarial].certain
    for line in health.warnings(measured, certain):
      log.warning('%s', line)
    grid = sample_grid(state.ema, examples[:_SAMPLES], codes[:_SAMPLES])
    return loop.Evaluation(
      {f'val_{name}': value for name, value in measured.items()}, {'styles': grid}
    )

  return evaluate
