"""Imports published files of StyleGAN2 and pSp as stages of a run."""

import logging
import math
import os

import jax
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import files
from step_jax.errors import RunError, WeightsError
from step_jax.methods.psp import encoders, import_weights, train_psp, train_stylegan2
from step_jax.methods.psp import generator as generator_lib
from step_jax.methods.psp.generator import Generator
from step_jax.methods.psp.stages import psp
from step_jax.train import checkpoint, lock
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

# `dataset_type` of the reference -> preset.
_TASKS = {
  'ffhq_encode': 'encode',
  'ffhq_frontalize': 'frontalize',
  'celebs_sketch_to_face': 'sketch',
  'celebs_seg_to_face': 'segmentation',
  'celebs_super_resolution': 'super_resolution',
}
_KINDS = {
  encoders.GradualStyleEncoder: 'pyramid',
  encoders.IntoWEncoder: 'into_w',
  encoders.IntoWPlusEncoder: 'into_w_plus',
}


def import_stylegan2(file: str | os.PathLike, workdir: str | os.PathLike, data: str = ''):
  """Imports a file of StyleGAN2 as the stage `stylegan2` of a run.

  Optimizer states are always newly initialised. A missing discriminator, constant noise or mean
  style is also initialised, and logged.

  Args:
    file: see `import_weights.read_stylegan2`.
    workdir: work directory of the run.
    data: images for evaluation and further training.

  Returns:
    Folder of the stage.

  Raises:
    UserError: the file is not of StyleGAN2, or is incomplete, or the stage already exists.
  """
  path = files.path(file)
  nets = import_weights.read_stylegan2(path)
  config = config_lib.load(config_lib.stage_file('stylegan2'))
  _set_generator(config, nets.generator, str(path))
  config.data.path = data or config.data.path
  config.data.resize, config.data.crop = nets.generator.size, (nets.generator.size,) * 2
  config.data.eval_crop = config.data.crop
  state = jax.jit(train_stylegan2.make(config).init)(jax.random.key(config.seed))
  params = {**state.params, 'generator': nets.generator_variables['params']}
  if nets.discriminator is None:
    log.info('%s: has no discriminator: a new one is initialised', path)
  elif nets.discriminator.channels != nets.generator.channels:
    raise WeightsError(f'{path}: its discriminator has other channels than its generator')
  else:
    params['discriminator'] = nets.discriminator_variables['params']
  stats = {**state.stats, 'noise': nets.generator_variables['noise'], 'w_mean': nets.mean_style}
  ema = {'generator': jax.tree.map(np.copy, nets.generator_variables['params'])}
  return _save(workdir, config, state.replace(params=params, ema=ema, stats=stats))


def import_psp(file: str | os.PathLike, workdir: str | os.PathLike, data: str = ''):
  """Imports a file of pSp, including its generator, as the stage `psp` of a run.

  Args:
    file: see `import_weights.read_psp`.
    workdir: work directory of the run.
    data: images for evaluation and further training.

  Returns:
    Folder of the stage.

  Raises:
    UserError: the file is not of pSp, or is incomplete, or the stage already exists.
  """
  path = files.path(file)
  nets = import_weights.read_psp(path)
  task = _TASKS.get(nets.options.get('dataset_type'), '')
  arg = f':,preset={task}' if task else ''
  config = config_lib.load(f'{config_lib.stage_file("psp")}{arg}')
  _set_generator(config, nets.generator, str(path))
  encoder, model = nets.encoder, config.model
  model.encoder = _KINDS[type(encoder)]
  model.encoder_size = encoder.size
  channels = nets.encoder_variables['params']['body']['conv']['kernel'].shape[2]
  if channels not in (1, 3):
    config.task, config.data.palette, config.data.classes = 'segmentation', 'index', channels
  model.body_width, model.body_depths = encoder.widths[0], tuple(encoder.depths)
  config.start_from_mean = nets.mean_style is not None
  config.init_from = ''
  config.data.path = data or config.data.path
  # The reference compares images at the size of the encoder, for any size of the generator.
  config.data.resize, config.data.crop = encoder.size, (encoder.size,) * 2
  config.data.eval_crop = config.data.crop
  objectives, _ = psp.objectives(config, with_weights=False)
  state = jax.jit(train_psp.make(objectives).init)(jax.random.key(config.seed))
  params = {
    'encoder': nets.encoder_variables['params'],
    'generator': nets.generator_variables['params'],
  }
  mean = state.stats['mean_style']
  if nets.mean_style is not None:
    mean = np.atleast_2d(nets.mean_style)[0]
    if not np.array_equal(np.broadcast_to(mean, np.shape(nets.mean_style)), nets.mean_style):
      raise WeightsError(f'{path}: its mean style differs from layer to layer')
  stats = {
    'encoder': nets.encoder_variables['batch_stats'],
    'noise': nets.generator_variables['noise'],
    'mean_style': mean,
  }
  return _save(workdir, config, state.replace(params=params, stats=stats))


def _set_generator(config: ml_collections.ConfigDict, generator: Generator, where: str) -> None:
  """Sets the fields of `model` to those of a generator.

  Raises:
    WeightsError: its channels do not belong to a configuration of StyleGAN2.
  """
  model, channels = config.model, tuple(generator.channels)
  model.size, model.max_channels = generator.size, channels[0]
  model.style_dim, model.mapping_depth = generator.style_dim, generator.mapping_depth
  sides = [4 * 2**i for i in range(len(channels))]
  fewer = [c * side / 16384 for c, side in zip(channels, sides, strict=True) if side > 32]
  model.channel_multiplier = float(min(fewer, default=2.0))
  table = generator_lib.channel_table(generator.size, model.channel_multiplier, channels[0])
  if table != channels or not math.isfinite(model.channel_multiplier):
    raise WeightsError(f'{where}: its channels {channels} are not those of a StyleGAN2 generator')


def _save(workdir, config, state):
  folder = stage_lib.stage_folder(files.path(workdir), config.stage)
  with lock.hold(folder):
    if checkpoint.exists(folder):
      raise RunError(f'{folder}: is already trained: choose another --workdir')
    config_lib.save(config, folder)
    checkpoints = checkpoint.Checkpoints(folder, config.best_metric)
    try:
      checkpoints.save(0, jax.device_put(state))
    finally:
      checkpoints.close()
  return folder
