"""Runs a stage: from a configuration and a work directory to checkpoints, metrics and samples."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import logging
import os
import pathlib
import tempfile
import time

from clu import parameter_overview
import jax
import ml_collections

from step_jax import config as config_lib
from step_jax import data, files, untrusted
from step_jax.data import contents as contents_lib
from step_jax.errors import RunError
from step_jax.train import (
  checkpoint,
  lock,
  loop,
  profiling,
  same_data,
  stopping,
  wandb_writer,
  writers,
)
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib
from step_jax.train import state as state_lib

log = logging.getLogger(__name__)

LOG_FILE = 'train.log'
# Seconds between copies of the log to a bucket.
_LOG_SECONDS = 30.0
# Fields that may change on resume: schedule, logging, placement. They do not affect what was
# trained so far.
_FREE = ('schedule.', 'every.', 'data.unreadable', 'fsdp', 'profile', 'wandb', 'best_metric')


Build = Callable[[ml_collections.ConfigDict, files.Path, jax.sharding.Mesh], stage_lib.Training]


def train(
  build: Build,
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  change_config: bool = False,
) -> files.Path:
  """Trains a stage in `workdir/<config.stage>`, or resumes it.

  Args:
    build: creates the stage: `(config, workdir, mesh) -> Training`.
    config: configuration, from `configs/<stage>.py`.
    workdir: work directory of the run, which contains the folders of its stages: a folder, or
      `gs://BUCKET/FOLDER`.
    change_config: whether to resume although the stage, or the stage that it starts from, was
      trained with another configuration or on other images.

  Returns:
    The folder of the stage: `config.json`, `data.json`, `checkpoints/`, `metrics.jsonl`,
    `train.log`, `tensorboard/`, `samples/`, and other outputs (mined neighbours, style codes).

  Raises:
    UserError: the configuration, the data, weights or the previous stage cannot be used; the stage
      was trained with another configuration or on other images; or another process trains it.
    Preempted: SIGTERM was received; the current step is saved.
    KeyboardInterrupt: SIGINT was received; the current step is saved.
  """
  workdir = files.path(workdir)
  folder = stage_lib.stage_folder(workdir, config.stage)
  untrusted.check_links(folder)
  with lock.hold(folder) as check_held:
    changes = _changes(config, folder)
    refused = {field: change for field, change in changes.items() if not field.startswith(_FREE)}
    if refused and not change_config:
      raise RunError(
        '\n  '.join([f'{folder}: was trained with another configuration:', *_lines(refused)])
        + '\npass the old values or another --workdir, or accept the new ones by --change-config'
      )
    notes = [f'from here on {line}' for line in _lines(changes)]
    images = None
    if 'data' in config:
      dataset = data.open_config(config.data)
      images = contents_lib.of(dataset)
      problem = same_data.problem(config, workdir, dataset)
      if problem and not change_config:
        raise RunError(problem)
      notes += [f'accepted by --change-config: {line.strip()}' for line in problem.splitlines()]
    _train(build, config, workdir, folder, images, notes, check_held)
  return folder


def _changes(config: ml_collections.ConfigDict, folder: files.Path) -> dict[str, tuple]:
  """Fields that differ from the configuration of the trained stage: old and new values."""
  if not checkpoint.exists(folder) or not (folder / config_lib.FILE).is_file():
    return {}
  changes = config_lib.differences(config_lib.read(folder), config)
  # The effect of the argument is in the other fields.
  changes.pop('arg', None)
  if same_data.is_same_path(*(path or '' for path in changes.get('data.path', ('', '')))):
    changes.pop('data.path', None)
  return changes


def _lines(changes: dict[str, tuple]) -> list[str]:
  return [f'{field}: {old!r} -> {new!r}' for field, (old, new) in changes.items()]


def _train(
  build: Build,
  config: ml_collections.ConfigDict,
  workdir: files.Path,
  folder: files.Path,
  images: contents_lib.Contents | None,
  notes: Sequence[str],
  check_held: Callable[[], None],
) -> None:
  project = config.get('wandb', '')
  wandb_writer.check(project)
  mesh = mesh_lib.make_mesh()
  stage = build(config, workdir, mesh)
  with contextlib.ExitStack() as closing:
    # Entered first, so that signals are handled until everything is written.
    stop = closing.enter_context(stopping.Stop())
    checkpoints = checkpoint.Checkpoints(folder, config.best_metric)
    closing.callback(checkpoints.close)
    shardings = _shardings(config, stage, mesh)
    state = _initial_state(config, stage, checkpoints, shardings)
    start = int(state.step)
    if start >= stage.num_steps:
      log.info('%s: is trained already (%d steps)', folder, start)
      return
    writer = profiler = None
    if jax.process_index() == 0:
      config_lib.save(config, folder)
      if images is not None:
        contents_lib.write(images, folder)
      writer = writers.MetricWriter(folder, start)
      closing.callback(writer.close)
      if project:
        online = wandb_writer.WandbWriter(project, folder, config)
        closing.callback(online.close)
        writer = writers.Several(writer, online)
      log_file = closing.enter_context(_log_to(folder / LOG_FILE))
      # Only to the file, because the table has one line per array.
      table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
      log_file.handle(logging.makeLogRecord({'msg': f'parameters:\n{table}'}))
      profiler = profiling.Profiler(folder, config.get('profile', ()))
      closing.callback(profiler.close)
    frozen = mesh_lib.put_replicated(mesh, stage.frozen)

    def stop_now(step):
      check_held()
      return stop.now(step)

    step = stage.step.jitted_step(shardings)
    gather = functools.partial(_gather_networks, mesh)
    features = f', features={stage.features}' if stage.features else ''
    log.info('%s: steps %d to %d%s', folder, start + 1, stage.num_steps, features)
    for note in notes:
      log.info('%s', note)
    state = loop.run(
      state,
      lambda state, batch: step(state, mesh_lib.to_global(mesh, batch), frozen),
      stage.batches(start),
      stage.num_steps,
      loop.Every(**config.every),
      checkpoints,
      writer,
      stage.evaluate and (lambda state: stage.evaluate(gather(state))),
      stage.items_per_step,
      stop_now,
      profiler,
    )
  stop.tell(int(state.step))


class _LogFile(logging.FileHandler):
  def __init__(self, path: pathlib.Path):
    # File names may contain bytes that are not valid text.
    super().__init__(path, encoding='utf-8', errors='backslashreplace')

  def handleError(self, record):  # noqa: N802
    """Ignores errors: a full disk is reported when checkpoints or metrics are written."""


class _LogObject(_LogFile):
  """A log in a bucket: written on this machine, and copied regularly and at the end."""

  def __init__(self, path: files.Path):
    self._path = path
    self._temporary = tempfile.TemporaryDirectory(prefix='step_jax-')
    self._here = pathlib.Path(self._temporary.name) / path.name
    with contextlib.suppress(FileNotFoundError):
      self._here.write_bytes(files.readable(path).read())
    self._copied = time.monotonic()
    super().__init__(self._here)

  def emit(self, record):
    super().emit(record)
    if time.monotonic() - self._copied > _LOG_SECONDS:
      self._copy()

  def _copy(self):
    self._copied = time.monotonic()
    with contextlib.suppress(RunError):
      files.write_bytes(self._path, self._here.read_bytes())

  def close(self):
    super().close()
    if self._here.exists():
      self._copy()
      self._temporary.cleanup()


@contextlib.contextmanager
def _log_to(path: files.Path) -> Iterator[logging.Handler]:
  """Also writes our own log messages to a file; yields the handler."""
  handler = (_LogObject if files.in_bucket(path) else _LogFile)(path)
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
  logger = logging.getLogger('step_jax')
  level = logger.level
  logger.addHandler(handler)
  # The file is complete even if messages are not displayed, as in a notebook.
  logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
  try:
    yield handler
  finally:
    logger.setLevel(level)
    logger.removeHandler(handler)
    handler.close()


def _shardings(config, stage: stage_lib.Training, mesh):
  shapes = jax.eval_shape(stage.step.init, jax.random.key(config.seed))
  return mesh_lib.of_state(mesh, shapes, config.get('fsdp', False))


def _gather_networks(mesh, state):
  """Copies all networks of a state to every device, for evaluation."""
  # Compiled, because no host may have all shards.
  gather = jax.jit(lambda *trees: trees, out_shardings=mesh_lib.replicated(mesh))
  params, ema, stats = gather(state.params, state.ema, state.stats)
  return state.replace(params=params, ema=ema, stats=stats)


def _initial_state(config, stage: stage_lib.Training, checkpoints, shardings):
  """Initial state: the latest checkpoint, or a new state with networks of the previous stage."""
  key = jax.random.key(config.seed)
  if checkpoints.latest is not None:
    like = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      jax.eval_shape(stage.step.init, key),
      shardings,
    )
    return checkpoints.restore_newest(like, set_aside=True)[1]

  def init(key, warm, warm_stats):
    state = stage.step.init(key)
    # Averages start from the given networks too; in the original, from the random initial ones.
    averaged = {name: warm.get(name, tree) for name, tree in state.ema.items()}
    stats = state.stats
    if warm_stats:
      ours = {state_lib.AVERAGED.format(name): tree for name, tree in warm_stats.items()}
      stats = {**stats, **warm_stats, **{name: ours[name] for name in ours.keys() & stats.keys()}}
    return state.replace(params={**state.params, **warm}, ema=averaged, stats=stats)

  # It runs only once, so optimizing it would take longer than running it.
  once = {'xla_backend_optimization_level': 0}
  return jax.jit(init, out_shardings=shardings, compiler_options=once)(
    key, stage.warm_start, stage.warm_stats
  )
