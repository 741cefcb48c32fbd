"""Stages 2 and 3 put together: pairs to train on, validation pairs to rebuild, a warm start."""

from collections.abc import Iterator
import functools
import itertools
import logging

import jax
import ml_collections
import numpy as np

from step_jax import data, files, models, weights
from step_jax.data import augment, pipeline
from step_jax.errors import RunError
from step_jax.evaluate import health, parallel, reconstruction, scores
from step_jax.infer import functions, gallery
from step_jax.methods import networks, translate
from step_jax.methods.plan import Plan
from step_jax.stages import stage as stage_lib
from step_jax.train import loop
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

# Validation pictures in the sample grid, and the styles that each is shown in.
_SAMPLES = 4
# Validation pictures that a device scores at a time.
_EVAL_BATCH = 8
_LOGGED = ('psnr', 'psnr_other', 'l1', 'perceptual')


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Stage:
  """Makes stage 2, stage 3 or a baseline ready."""
  mesh_lib.check_batch_size(config.batch_size)
  found = data.open_config(config.data, paired=True)
  found.check_crop('train', config.data.crop)
  features = weights.load_features(
    config.features.net, config.features.taps, config.features.weights
  )
  method = translate.make(config, features.module)
  frozen = mesh_lib.put_replicated(mesh, {'features': features.params})
  return stage_lib.Stage(
    method=method,
    batches=lambda start: _train_batches(config, found, start),
    num_steps=stage_lib.num_steps(config),
    items_per_step=config.batch_size,
    features=features.label,
    frozen=frozen,
    warm_start=_warm_start(config, workdir, method, mesh),
    evaluate=_evaluator(config, found, features.module, frozen, mesh),
  )


def _train_batches(config, found: data.PairSet, start: int) -> Iterator[dict[str, np.ndarray]]:
  settings = config.data
  split = found.split('train')
  source, target = data.sides(found, config.data.direction)
  suffixes = ('', '_b') if Plan.of(config).cycle else ('',)

  def load(index, rng):
    # The second pair, where styles are swapped, is any other draw; now and then the same.
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


def _warm_start(config, workdir, method, mesh):
  """Networks of the stage before: its style encoder after stage 1, else all in common.

  Raises:
    RunError: that stage has no checkpoint, or networks that do not fit.
  """
  if not config.init_from:
    return {}
  folder = stage_lib.stage_folder(workdir, config.init_from)
  wanted = jax.eval_shape(method.init, jax.random.key(0)).params
  stored = stage_lib.stored_networks(folder)
  like = {name: tree for name, tree in wanted.items() if name in stored}
  if not like:
    raise RunError(
      f'{folder}: holds none of the networks of this stage ({", ".join(wanted)}), only '
      f'{", ".join(sorted(stored))}: set init_from to another stage'
    )
  return stage_lib.load_networks(folder, {'params': like}, mesh)['params']


def _evaluator(config, found: data.PairSet, module: models.FeatureNet, frozen, mesh):
  """Rebuilds validation pictures with averaged weights, and shows some in the styles of others.

  Pictures are shared out over all devices, each of which takes them in batches of one size, so that
  scores do not depend on how many devices there are.

  Args:
    config: of the stage.
    found: the data.
    module: the feature net.
    frozen: `{'features': its parameters}`, on every device.
    mesh: all devices.

  Returns:
    A function of the state, whose networks are on every device.
  """
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  tap_weights = dict(zip(config.features.taps, config.features.tap_weights, strict=True))
  discriminator = networks.discriminator(config)
  distance = (module, tap_weights)

  def encode_targets(params, batch):
    return {'z': functions.encode(encoder, params, batch['target'])}

  def translate_sources(params, batch):
    return {'output': functions.generate(generator, params, batch['source'], batch['z'])}

  def score_pairs(params, judges, feature_params, batch):
    made = reconstruction.rebuild(encoder, generator, params, batch)
    scores_ = reconstruction.score(*distance, feature_params, made, batch['mask'])
    signs = health.compare_styles(*distance, feature_params, made, batch['mask'])
    if 'discriminator' in judges:
      pictures = {
        'judged_real': batch['target'],
        'judged_encoded': made['own'],
        'judged_drawn': functions.generate(generator, params, batch['source'], batch['drawn']),
      }
      signs |= health.judge(discriminator, judges['discriminator'], batch['source'], pictures)
    return {**scores_, **signs, 'z': made['z']}

  encode, translate_, score = (
    parallel.over_devices(mesh, function)
    for function in (encode_targets, translate_sources, score_pairs)
  )
  source, target = data.sides(found, config.data.direction)
  split = found.split('val')
  roles = {'source': source, 'target': target}

  def collect(function, constants, examples):
    batches = pipeline.eval_batches(examples, _EVAL_BATCH, mesh.size)
    return scores.collect(functools.partial(function, *constants), batches)

  def sample_grid(params, examples, codes):
    """Rows: an input, its true picture, and its translation in the styles of all of these."""
    pairs = [{'source': example['source'], 'z': z} for example in examples for z in codes]
    batches = pipeline.eval_batches(pairs, _EVAL_BATCH, mesh.size)
    outputs = (
      row['output'] for row in scores.in_order(functools.partial(translate_, params), batches)
    )
    rows = [[np.full_like(examples[0]['source'], 255)] * 2 + [e['target'] for e in examples]]
    for example in examples:
      rows.append([example['source'], example['target'], *itertools.islice(outputs, len(codes))])
    return gallery.grid(rows)

  def evaluate(state):
    judges = {name: state.params[name] for name in Plan.of(config).discriminators}
    # Kept, as they are wanted twice: that is less than the activations of one batch take.
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
    for line in health.warnings(measured):
      log.warning('%s', line)
    grid = sample_grid(state.ema, examples[:_SAMPLES], codes[:_SAMPLES])
    return loop.Evaluation(
      {f'val_{name}': value for name, value in measured.items()}, {'styles': grid}
    )

  return evaluate
