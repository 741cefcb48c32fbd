"""Imports published checkpoints as a run, for inference, evaluation and further training."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import config as config_lib
from step_jax import files
from step_jax.errors import RunError, WeightsError
from step_jax.methods.superstylenet import extraction, networks, stage
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.import_weights import load_discriminator, load_generator
from step_jax.methods.superstylenet.spse import CODE_SIZE
from step_jax.train import checkpoint, lock
from step_jax.train import stage as stage_lib


def import_run(
  paths: list[str | os.PathLike],
  workdir: str | os.PathLike,
  classes: int = 0,
  data: str = '',
  preset: str = '',
  upsamplings: int = 5,
) -> pathlib.Path:
  """Imports `<epoch>_net_G.pth`, and optionally `<epoch>_net_D.pth`, as a stage of a run.

  Without a discriminator, a new one is initialised for further training. The files do not have the
  mean codes of the training images, which replace missing codes of labels. Until the stage is
  trained further, labels without a code get the code of black.

  Args:
    paths: paths of the generator and, optionally, of the discriminator.
    workdir: work directory of the run.
    classes: expected number of labels; 0: that of the generator.
    data: images for evaluation and further training.
    preset: settings of a known data set.
    upsamplings: number of upsamplings of the generator, 5 or 6.

  Returns:
    Folder of the stage.

  Raises:
    UserError: the files are not of SuperStyleNet, or have another number of labels; or the stage
      already exists.
  """
  if not 1 <= len(paths) <= 2:
    raise WeightsError(f'{len(paths)} files: pass a generator, and optionally its discriminator')
  generator = load_generator(paths[0], upsamplings)
  module = generator.module
  if classes and module.num_labels != classes:
    raise WeightsError(
      f'{paths[0]}: has {module.num_labels} labels, not {classes}: set --classes to this number'
    )
  if module.style_size != CODE_SIZE:
    raise WeightsError(f'{paths[0]}: takes codes of {module.style_size} numbers, not {CODE_SIZE}')
  config = config_lib.load(f'{config_lib.stage_file("superstylenet")}:{preset}')
  config.data.path = data or config.data.path
  config.data.classes = module.num_labels
  config.ema_decay = 0.0
  config.model.update(
    generator_width=module.width,
    num_upsamplings=upsamplings,
    label_width=module.label_width,
    spade_width=module.spade_width,
  )
  if len(paths) == 2:
    discriminator = load_discriminator(paths[1])
    if discriminator.module.num_labels != module.num_labels:
      raise WeightsError(
        f'{paths[1]}: has another number of labels than {paths[0]}: give files of one training'
      )
    config.model.discriminator_width = discriminator.module.width
    judge = discriminator.variables
  else:
    image = jnp.zeros((1, 16, 16, 3))
    fresh = networks.discriminator(config)
    judge = fresh.init(jax.random.key(config.seed), image[..., 0].astype(jnp.int32), image)
  variables = jax.tree.map(
    jnp.asarray, {'generator': generator.variables, 'discriminator': dict(judge)}
  )
  state = networks.trainer(config, None).create(
    {name: own.pop('params') for name, own in variables.items()}, variables
  )
  folder = stage_lib.stage_folder(workdir, 'superstylenet')
  none = RegionCodes(
    np.zeros((module.num_labels, CODE_SIZE), np.float32), np.zeros(module.num_labels, bool)
  )
  with lock.hold(folder):
    if checkpoint.exists(folder):
      raise RunError(f'{folder}: is already trained: choose another --workdir')
    config_lib.save(config, folder)
    extraction.write_bank(
      folder / stage.BANK_FILE, RegionCodes(none.codes[None], none.valid[None]), none
    )
    checkpoints = checkpoint.Checkpoints(folder, config.best_metric)
    try:
      checkpoints.save(0, state)
    finally:
      checkpoints.close()
  return files.path(folder)
