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
from step_jax.train import checkpoint, lock, loop, stopping, writers
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

LOG_FILE = 'train.log'
# `gs://…`, also with the slash that a path leaves out.
_ADDRESS = re.compile(r'\w+:/')
# What decides when to end, to look and to stop, not what was trained so far: may differ from the
# start before.
_FREE = ('schedule.', 'every.', 'data.unreadable')
BUILDERS = {'pretrain': pretrain.build, 'translate': translate.build, 'mapper': mapper.build}


def train(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path, change_config: bool = False
) -> pathlib.Path:
  """Trains a stage in `workdir/<config.stage>`, from where it stopped if it was started before.

  Args:
    config: as `configs/<stage>.py` gives it.
    workdir: of the run; its stages lie side by side in it.
    change_config: go on with a stage although it was trained with another configuration so far.

  Returns:
    The stage's folder: `config.json`, `checkpoints/`, `metrics.jsonl`, `train.log`, `tensorboard/`,
    `samples/`, and what the stage made on the way (mined neighbours, style codes).

  Raises:
    UserError: the configuration, the data, weights or the stage before cannot be used; the stage
      was trained with another configuration, or another process trains it now.
    Preempted: SIGTERM came; the step that was running is saved.
    KeyboardInterrupt: SIGINT came; likewise.
  """
  config_lib.validate(config)
  if _ADDRESS.match(str(workdir)):
    # As a path it would be a local folder of that name, lost with the machine.
    raise RunError(
      f'{workdir}: a bucket cannot be the work directory: mount the bucket, and give its folder'
    )
  workdir = pathlib.Path(workdir)
  folder = stage_lib.stage_folder(workdir, config.stage)
  with lock.hold(folder):
    changes = _changes(config, folder)
    refused = {field: change for field, change in changes.items() if not field.startswith(_FREE)}
    if refused and not change_config:
      raise RunError(
        '\n  '.join([f'{folder}: was trained with another configuration:', *_lines(refused)])
        + '\ngive the old values, or another --workdir; or go on with the new by --change-config'
      )
    _train(config, workdir, folder, changes)
  return folder


def _changes(config: ml_collections.ConfigDict, folder: pathlib.Path) -> dict[str, tuple]:
  """Fields that differ from those that the stage was trained with: values then and now."""
  if not checkpoint.exists(folder) or not (folder / config_lib.FILE).is_file():
    return {}
  changes = config_lib.differences(config_lib.read(folder), config)
  # The argument has said all it has to say in the other fields.
  changes.pop('arg', None)
  old, new = (pathlib.Path(p or '').expanduser() for p in changes.get('data.path', ('', '')))
  if old.resolve() == new.resolve():
    changes.pop('data.path', None)
  return changes


def _lines(changes: dict[str, tuple]) -> list[str]:
  return [f'{field}: {old!r} -> {new!r}' for field, (old, new) in changes.items()]


def _train(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  folder: pathlib.Path,
  changes: dict[str, tuple],
) -> None:
  mesh = mesh_lib.make_mesh()
  stage = BUILDERS[config.method](config, workdir, mesh)
  with contextlib.ExitStack() as closing:
    # The first to come is the last to go: signals are taken until all is written.
    stop = closing.enter_context(stopping.Stop())
    checkpoints = checkpoint.Checkpoints(folder, config.best_metric)
    closing.callback(checkpoints.close)
    state = _initial_state(config, stage, checkpoints, mesh)
    start = int(state.step)
    if start >= stage.num_steps:
      log.info('%s: is trained already (%d steps)', folder, start)
      return
    writer = None
    if jax.process_index() == 0:
      config_lib.save(config, folder)
      writer = writers.MetricWriter(folder, start)
      closing.callback(writer.close)
      closing.enter_context(_log_to(folder / LOG_FILE))
    frozen = mesh_lib.put_replicated(mesh, stage.frozen)
    step = stage.method.jitted_step()
    features = f', features={stage.features}' if stage.features else ''
    log.info('%s: steps %d to %d%s', folder, start + 1, stage.num_steps, features)
    for line in _lines(changes):
      log.info('from here on %s', line)
    state = loop.run(
      state,
      lambda state, batch: step(state, mesh_lib.to_global(mesh, batch), frozen),
      stage.batches(start),
      stage.num_steps,
      loop.Every(**config.every),
      checkpoints,
      writer,
      stage.evaluate,
      stage.items_per_step,
      stop.now,
    )
  stop.tell(int(state.step))


class _LogFile(logging.FileHandler):
  def handleError(self, record):  # noqa: N802
    """A line that cannot be written is let go: what matters to the run tells of a full disk."""


@contextlib.contextmanager
def _log_to(path: pathlib.Path):
  """Sends our own log messages to a file as well."""
  handler = _LogFile(path)
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
    return checkpoints.restore_newest(like, set_aside=True)[1]

  def init(key, warm):
    state = stage.method.init(key)
    # Averages start from the given networks too. The original's start from its random ones.
    averaged = {name: warm.get(name, tree) for name, tree in state.ema.items()}
    return state.replace(params={**state.params, **warm}, ema=averaged)

  return jax.jit(init, out_shardings=sharding)(key, stage.warm_start)
