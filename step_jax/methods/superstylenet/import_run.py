"""A run from published checkpoints, to draw with, to score and to train further."""

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
  """Turns `<epoch>_net_G.pth`, and perhaps `<epoch>_net_D.pth`, into a stage of a run.

  Without a discriminator a fresh one is made, for further training. The mean codes, which labels
  take that a style lacks, are those of the training images, which are not in the files: until the
  stage is trained further, such labels are drawn as black.

  Args:
    paths: of the generator, and of the discriminator if there is one.
    workdir: of the run.
    classes: number of labels, to check the files by; 0 takes that of the generator.
    data: images, for evaluation and further training.
    preset: settings of a known data set.
    upsamplings: how often the generator doubles its maps, 5 or 6.

  Returns:
    The stage's folder.

  Raises:
    UserError: the files are not of SuperStyleNet, or not of that many labels; or the stage is there
      already.
  """
  if not 1 <= len(paths) <= 2:
    raise WeightsError(f'{len(paths)} files: pass a generator, and optionally its discriminator')
  generator = load_generator(paths[0], upsamplings)
  module = generator.module
  if classes and module.num_labels != classes:
    raise WeightsError(
      f'{paths[0]}: is of {module.num_labels} labels, not of {classes}: set --classes to that'
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
      raise WeightsError(f'{paths[1]}: is of another number of labels than {paths[0]}')
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
      raise RunError(f'{folder}: is trained already: choose another --workdir')
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
