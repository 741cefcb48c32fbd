"""Runs a stage: from a configuration and a work directory to checkpoints, metrics and samples."""

import contextlib
import logging
import pathlib
import re

import jax
import ml_collections

from step_jax import config as config_lib
from step_jax.errors import RunError
from step_jax.stages import mapper, pretrain, translate
from step_jax.stages import stage as stage_lib
from step_jax.train import checkpoint, loop, writers
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

LOG_FILE = 'train.log'
# `gs://…`, also with the slash that a path leaves out.
_ADDRESS = re.compile(r'\w+:/')
BUILDERS = {'pretrain': pretrain.build, 'translate': translate.build, 'mapper': mapper.build}


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> pathlib.Path:
  """Trains a stage in `workdir/<config.stage>`, from where it stopped if it was started before.

  Args:
    config: as `configs/<stage>.py` gives it.
    workdir: of the run; its stages lie side by side in it.

  Returns:
    The stage's folder: `config.json`, `checkpoints/`, `metrics.jsonl`, `train.log`, `tensorboard/`,
    `samples/`, and what the stage made on the way (mined neighbours, style codes).

  Raises:
    UserError: the configuration, the data, weights or the stage before cannot be used.
  """
  config_lib.validate(config)
  if _ADDRESS.match(str(workdir)):
    # As a path it would be a local folder of that name, lost with the machine.
    raise RunError(
      f'{workdir}: a bucket cannot be the work directory: mount the bucket, and give its folder'
    )
  workdir = pathlib.Path(workdir)
  folder = stage_lib.stage_folder(workdir, config.stage)
  mesh = mesh_lib.make_mesh()
  stage = BUILDERS[config.method](config, workdir, mesh)
  folder.mkdir(parents=True, exist_ok=True)
  config_lib.save(config, folder)
  checkpoints = checkpoint.Checkpoints(folder, config.best_metric)
  state = _initial_state(config, stage, checkpoints, mesh)
  start = int(state.step)
  if start >= stage.num_steps:
    log.info('%s: is trained already (%d steps)', folder, start)
    return folder
  frozen = mesh_lib.put_replicated(mesh, stage.frozen)
  step = stage.method.jitted_step()
  writer = writers.MetricWriter(folder, start) if jax.process_index() == 0 else None
  with _log_to(folder / LOG_FILE), contextlib.ExitStack() as closing:
    closing.callback(checkpoints.close)
    if writer:
      closing.callback(writer.close)
    features = f', features={stage.features}' if stage.features else ''
    log.info('%s: steps %d to %d%s', folder, start + 1, stage.num_steps, features)
    loop.run(
      state,
      lambda state, batch: step(state, mesh_lib.to_global(mesh, batch), frozen),
      stage.batches(start),
      stage.num_steps,
      loop.Every(**config.every),
      checkpoints,
      writer,
      stage.evaluate,
      stage.items_per_step,
    )
  return folder


@contextlib.contextmanager
def _log_to(path: pathlib.Path):
  """Sends our own log messages to a file as well."""
  handler = logging.FileHandler(path)
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
  logger = logging.getLogger('step_jax')
  level = logger.level
  logger.addHandler(handler)
  # The file is whole even where nobody asked to see messages, as in a notebook.
  logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
  try:
    yield
  finally:
    logger.setLevel(level)
    logger.removeHandler(handler)
    handler.close()


def _initial_state(config, stage: stage_lib.Stage, checkpoints, mesh):
  """The state to go on from: the latest checkpoint, else fresh with what the stage before gives."""
  key = jax.random.key(config.seed)
  sharding = mesh_lib.replicated(mesh)
  if checkpoints.latest is not None:
    like = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      jax.eval_shape(stage.method.init, key),
    )
    return checkpoints.restore(like)

  def init(key, warm):
    state = stage.method.init(key)
    # Averages start from the given networks too. The original's start from its random ones.
    averaged = {name: warm.get(name, tree) for name, tree in state.ema.items()}
    return state.replace(params={**state.params, **warm}, ema=averaged)

  return jax.jit(init, out_shardings=sharding)(key, stage.warm_start)
