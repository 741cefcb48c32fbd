"""Stage 2: trains the encoder for a trained generator, and evaluates reconstructions."""

from collections.abc import Iterator
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import data, files
from step_jax.data import pipeline
from step_jax.errors import RunError
from step_jax.evaluate import metrics, parallel, scores
from step_jax.infer import gallery
from step_jax.methods.psp import encoders, functions, inputs, networks, published, train_psp
from step_jax.methods.psp.stages import stylegan2
from step_jax.train import checkpoint, loop
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

# Number of validation images in the sample grid.
_SAMPLES = 8
# Batch size of a device for validation images.
_EVAL_BATCH = 4


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Training:
  """Creates the training of the encoder."""
  mesh_lib.check_batch_size(config.batch_size)
  opened = data.open_config(config.data)
  opened.check_crop('train', config.data.crop)
  losses, frozen = objectives(config)
  frozen = mesh_lib.put_replicated(mesh, frozen)
  step = train_psp.make(losses)
  warm, warm_stats = _warm_start(config, workdir, mesh)
  return stage_lib.Training(
    step=step,
    batches=functools.partial(_train_batches, config, opened),
    num_steps=stage_lib.num_steps(config),
    items_per_step=config.batch_size,
    frozen=frozen,
    warm_start=warm,
    warm_stats=warm_stats,
    evaluate=_evaluator(config, opened, losses, frozen, mesh),
  )


def check(config: ml_collections.ConfigDict) -> None:
  """Checks combinations of fields.

  Raises:
    ConfigError: see `stylegan2.check_images`; or two terms exclude each other; or the task needs
      another field.
  """
  stylegan2.check_images(config)
  loss = config.loss
  config_lib.demand(
    not (loss.identity and loss.moco),
    'loss.moco',
    loss.moco,
    'loss.identity and loss.moco exclude each other: set one of them to 0',
  )
  config_lib.demand(
    config.task != 'segmentation' or config.data.palette,
    'data.palette',
    config.data.palette,
    'set how label maps encode classes, such as index',
  )
  side = networks.size(config)
  config_lib.demand(
    config.model.encoder != 'pyramid' or side >= 32,
    'model.encoder',
    config.model.encoder,
    'needs a generator of 32 px or more: use into_w_plus',
  )


def abstract(config: ml_collections.ConfigDict, size: tuple[int, int]) -> stage_lib.AbstractStep:
  """Shapes of the training step with targets of `size` (height, width)."""
  losses, frozen = objectives(config, with_weights=False)
  source = (config.batch_size, config.model.encoder_size, config.model.encoder_size)
  source += {'segmentation': (), 'sketch': (1,)}.get(config.task, (3,))
  batch = stage_lib.images(config, size, ('target',))
  batch['source'] = jax.ShapeDtypeStruct(source, jnp.uint8)
  return stage_lib.AbstractStep.of(train_psp.make(losses), batch, frozen)


def objectives(
  config: ml_collections.ConfigDict, with_weights: bool = True
) -> tuple[train_psp.Objectives, dict[str, Any]]:
  """The losses, and the frozen parameters of their networks.

  Args:
    config: configuration of the stage.
    with_weights: whether to load weights; otherwise shapes of the published ones are returned.

  Raises:
    UserError: weights are missing or cannot be read.
  """
  loss = config.loss
  modules, frozen = {'features': None, 'identity': None, 'moco': None}, {}
  if loss.lpips or loss.lpips_crop:
    trunk = (networks.lpips if with_weights else networks.lpips_shapes)(config)
    modules['features'] = trunk.module
    frozen |= {'features': trunk.params, 'heads': trunk.heads}
    log.info('loss.lpips uses %s', trunk.label)
  for term in ('identity', 'moco'):
    if loss[term]:
      read = networks.similarity if with_weights else networks.similarity_shapes
      modules[term], frozen[term] = read(config, term)
  encoder, generator = networks.encoder(config), networks.generator(config)
  return train_psp.Objectives(config, encoder, generator, **modules), frozen


def _warm_start(config, workdir, mesh) -> tuple[dict, dict]:
  """Parameters and statistics for the start: averaged generator, its noise and the mean style.

  Empty if the stage resumes from its own checkpoint, which has all of them.

  Raises:
    UserError: there is no such stage, its generator does not fit, or `body_weights` cannot be read.
  """
  if checkpoint.exists(stage_lib.stage_folder(workdir, config.stage)):
    return {}, {}
  if not config.init_from:
    raise RunError('config field init_from is empty: pSp needs a trained generator')
  folder = stage_lib.stage_folder(workdir, config.init_from)
  shapes = networks.generator_shapes(config)
  mean = jax.ShapeDtypeStruct((config.model.style_dim,), jnp.float32)
  like = {
    'ema': {'generator': shapes['params']},
    'stats': {'noise': shapes['noise'], 'w_mean': mean},
  }
  restored = stage_lib.load_networks(folder, like, mesh)
  stats = restored['stats']
  params, own = restored['ema'], {'noise': stats['noise'], 'mean_style': stats['w_mean']}
  if config.body_weights:
    started = _start_body(config)
    params, own = (
      {**params, 'encoder': started['params']},
      {**own, 'encoder': started['batch_stats']},
    )
  return params, own


def _start_body(config) -> dict:
  """Variables of a new encoder with the body of a trained network."""
  path = files.path(config.body_weights)
  if config.model.encoder == 'resnet50_linear':
    body = published.read_resnet50(path)[1]
  else:
    variables = published.read_face_embedding(path)[1]
    body = {collection: tree['body'] for collection, tree in variables.items()}
  encoder, side = networks.encoder(config), config.model.encoder_size
  image = jnp.zeros((1, side, side, networks.input_channels(config)))
  fresh = jax.jit(functools.partial(encoder.init, train=False))(jax.random.key(config.seed), image)
  try:
    return encoders.start_from(fresh, body)
  except ValueError as error:
    raise RunError(f'config field body_weights={config.body_weights!r}: {error}') from None


def _train_batches(config, opened: data.PairSet, start: int) -> Iterator[dict[str, np.ndarray]]:
  split, side_of = opened.split('train'), inputs.roles(config, opened)
  mirror = opened.labels.mirror()

  def load(index, rng):
    return inputs.train_example(config, split[index], side_of, rng, mirror)

  return pipeline.train_batches(
    np.arange(len(split)), load, config.batch_size, config.seed, start, stage_lib.shard()
  )


def _evaluator(config, opened: data.PairSet, objectives: train_psp.Objectives, frozen, mesh):
  """Computes the loss of each validation image, with constant noise, and reconstructs images."""
  generator, encoder = objectives.generator, objectives.encoder

  def score(variables, frozen, batch):
    params = {name: variables[name]['params'] for name in ('encoder', 'generator')}
    stats = functions.stats_of(variables)

    def one(example):
      example = {name: value[None] for name, value in example.items()}
      total, (terms, _) = objectives.loss(params, stats, example, frozen, None, train=False)
      return {'loss': total, **{name: terms[name] for name in terms if name != 'mixing'}}

    distances = jax.vmap(one)({name: batch[name] for name in ('source', 'target')})
    inputs_ = train_psp.to_input(batch['source'], config.task, networks.input_channels(config))
    styles = functions.encode(encoder, generator, variables, inputs_, config.start_from_mean)
    output = functions.draw(generator, variables, styles)
    side = batch['target'].shape[1]
    seen = functions.fit(output, side)
    return {**distances, 'psnr': metrics.psnr(seen, batch['target']), 'output': output}

  score = parallel.over_devices(mesh, score)
  count = opened.splits['val']

  def evaluate(state):
    variables = functions.variables(vars(state))
    examples = list(inputs.eval_examples(config, opened, 'val', config.eval_pictures))
    batches = pipeline.eval_batches(examples, _EVAL_BATCH, mesh.size)
    values = scores.collect(functools.partial(score, variables, frozen), batches)
    outputs = values.pop('output')
    rows = [
      [inputs.shown(config, example['source']), example['target'], output]
      for example, output in zip(examples[:_SAMPLES], outputs, strict=False)
    ]
    means = {f'val_{name}': scores.known_mean(value) for name, value in values.items()}
    return loop.Evaluation(means, {'encoded': gallery.grid(rows)})

  return evaluate if count else None
