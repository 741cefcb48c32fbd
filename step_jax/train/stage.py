"""What a stage hands to the loop, and what stages share in getting it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import files
from step_jax.data import pipeline
from step_jax.errors import RunError, shown
from step_jax.train import checkpoint, loop
from step_jax.train import mesh as mesh_lib
from step_jax.train import state as state_lib


@dataclasses.dataclass(frozen=True)
class Training:
  """A stage, ready for training.

  Attributes:
    step: training step.
    batches: first step -> batches of host arrays from that step on.
    num_steps: number of steps.
    items_per_step: number of images (or codes) per step.
    frozen: arrays that steps read but do not change, on the host or on every device.
    warm_start: network -> initial parameters, if not newly initialised.
    warm_stats: network -> initial statistics; its moving average starts from them too.
    evaluate: scores a state, whose networks are on every device, on all hosts together; or None.
    features: name of the feature network, for the log; `random` if it is not trained.
  """

  step: state_lib.TrainStep
  batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
  num_steps: int
  items_per_step: int
  frozen: dict[str, Any] = dataclasses.field(default_factory=dict)
  warm_start: dict[str, Any] = dataclasses.field(default_factory=dict)
  warm_stats: dict[str, Any] = dataclasses.field(default_factory=dict)
  evaluate: Callable[[state_lib.TrainState], loop.Evaluation] | None = None
  features: str = ''


@dataclasses.dataclass(frozen=True)
class AbstractStep:
  """A training step and the shapes of its arguments, to compile or analyse it without data.

  Attributes:
    step: the step; its `train_step` takes the following three arguments.
    state: a `TrainState` of `jax.ShapeDtypeStruct`.
    batch: role -> shape in a batch of the stage.
    frozen: shapes of arrays that steps read but do not change.
  """

  step: state_lib.TrainStep
  state: state_lib.TrainState
  batch: Mapping[str, jax.ShapeDtypeStruct]
  frozen: Mapping[str, Any]

  @classmethod
  def of(
    cls,
    step: state_lib.TrainStep,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    frozen: Mapping[str, Any] | None = None,
  ) -> 'AbstractStep':
    """Computes the shapes of the initial state of the step."""
    return cls(step, jax.eval_shape(step.init, jax.random.key(0)), batch, frozen or {})


def images(
  config: ml_collections.ConfigDict, size: tuple[int, int], roles: Sequence[str]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a batch of images by role, uint8 `[B, H, W, 3]`."""
  shape = (config.batch_size, *size, 3)
  return {role: jax.ShapeDtypeStruct(shape, jnp.uint8) for role in roles}


def shard() -> pipeline.Shard:
  """The part of every batch that this host reads."""
  return pipeline.Shard(jax.process_index(), jax.process_count())


def num_steps(config: ml_collections.ConfigDict) -> int:
  """Number of steps for `config.schedule.total_kimg` thousand images."""
  return -(-round(config.schedule.total_kimg * 1000) // config.batch_size)


def stage_folder(workdir: files.Path, name: str) -> files.Path:
  """Folder of a stage: a name in the work directory, or a path."""
  return files.join(files.path(workdir), name)


def warm_start(
  config: ml_collections.ConfigDict,
  workdir: files.Path,
  step: state_lib.TrainStep,
  mesh: jax.sharding.Mesh,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the networks that a stage shares with the one it starts from, `config.init_from`.

  Args:
    config: configuration of the new stage; if `init_from` is empty, nothing is read.
    workdir: work directory of the run.
    step: training step of the new stage.
    mesh: mesh; arrays are copied to every device.

  Returns:
    `Training.warm_start` and `Training.warm_stats`: the latest parameters of all networks that both
    stages have, and the statistics of these networks.

  Raises:
    RunError: the other stage has no checkpoint, no such network, or networks that do not fit.
  """
  if not config.init_from:
    return {}, {}
  folder = stage_folder(workdir, config.init_from)
  expected = jax.eval_shape(step.init, jax.random.key(0))
  with _open_checkpoints(folder) as checkpoints:
    params, stats = checkpoints.names('params'), checkpoints.names('stats')
  like = {name: tree for name, tree in expected.params.items() if name in params}
  if not like:
    raise RunError(
      f'{folder}: holds none of the networks of this stage ({", ".join(expected.params)}), only '
      f'{", ".join(sorted(params))}: set init_from to another stage'
    )
  own = expected.stats or {}
  of_these = {name: own[name] for name in own if name in like and name in stats}
  # A checkpoint does not contain empty dicts.
  loaded = load_networks(
    folder, {'params': like, **({'stats': of_these} if of_these else {})}, mesh
  )
  return loaded['params'], loaded.get('stats', {})


def load_networks(folder: files.Path, like: Any, mesh: jax.sharding.Mesh) -> Any:
  """The networks that `load_newest` reads, without their step."""
  return load_newest(folder, like, mesh)[1]


def load_newest(folder: files.Path, like: Any, mesh: jax.sharding.Mesh) -> tuple[int, Any]:
  """Reads part of the latest state of a trained stage.

  Args:
    folder: folder of that stage.
    like: subtree of a `TrainState` as dicts, of `jax.ShapeDtypeStruct`.
    mesh: mesh; arrays are copied to every device.

  Returns:
    The step of the checkpoint, and the arrays.

  Raises:
    RunError: the stage does not exist, is not trained, or its networks do not fit.
  """
  sharding = mesh_lib.replicated(mesh)
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like
  )
  with _open_checkpoints(folder) as checkpoints:
    return checkpoints.restore_newest(like)


def trained_config(folder: files.Path, stages: Sequence[str]) -> ml_collections.ConfigDict:
  """The configuration of a trained stage.

  Raises:
    RunError: the stage is not one of `stages`.
  """
  config = config_lib.read(folder)
  if config.stage not in stages:
    names = ' or '.join(map(repr, stages))
    raise RunError(f'{folder}: was trained as {shown(config.stage)!r}, not as {names}')
  return config


def load_run(folder: files.Path, like: Any, which: str = 'latest') -> tuple[int, Any, dict]:
  """Reads part of the state of a trained stage to the default device, for inference.

  Args:
    folder: folder of that stage.
    like: subtree of a `TrainState` as dicts, of `jax.ShapeDtypeStruct`: networks in `ema` or
      `params`, their statistics in `stats`.
    which: `latest` or `best` checkpoint.

  Returns:
    The step of the checkpoint, the arrays, and the scores of the checkpoint.

  Raises:
    RunError: there is no such checkpoint, or it cannot be read.
  """
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like
  )
  checkpoints = checkpoint.Checkpoints(folder, config_lib.read(folder).best_metric, create=False)
  try:
    if which == 'best':
      step = checkpoints.best
      state = checkpoints.restore(like, step)
    else:
      step, state = checkpoints.restore_newest(like)
    return step, state, checkpoints.scores(step)
  finally:
    checkpoints.close()


@contextlib.contextmanager
def _open_checkpoints(folder: files.Path) -> Iterator[checkpoint.Checkpoints]:
  if not checkpoint.exists(folder):
    raise RunError(
      f'{folder}: has no checkpoint to start from: train that stage first, or set init_from'
    )
  checkpoints = checkpoint.Checkpoints(folder, create=False)
  try:
    yield checkpoints
  finally:
    checkpoints.close()
