"""Checkpoints of a stage: the latest and the best.

They are written in the background, atomically, and verified when read.
"""

from collections.abc import Mapping
from concurrent import futures
import dataclasses
import functools
import logging
import os
import sys
import types
from typing import Any
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from step_jax import files
from step_jax.errors import ConfigError, RunError, shown, suggestion
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

_FOLDER = 'checkpoints'
# Folder for damaged checkpoints, next to `checkpoints`.
DAMAGED_FOLDER = 'damaged'


class Checkpoints:
  """The checkpoints of a stage.

  The CRC-32 of every array is stored, and verified when the array is read.

  Args:
    folder: folder of the stage.
    best_metric: metric that selects the best checkpoint, which is kept in addition to the latest;
      lower is better.
    create: whether to create the folder and remove files of killed processes; readers do not.
  """

  def __init__(self, folder: files.Path, best_metric: str = '', create: bool = True):
    _silence_abandoned_work()
    self._folder = files.absolute(folder / _FOLDER)
    self._best_metric = best_metric
    # Errors of the libraries for buckets have no common base class.
    self._refusals = (Exception,) if files.in_bucket(folder) else (OSError, ValueError)
    policies = ocp.checkpoint_managers
    # The two latest, in case the newest is damaged.
    preserved = [policies.LatestN(2)]
    score = None
    if best_metric:
      score = lambda metrics: float((metrics or {}).get(best_metric, 'inf'))
      preserved.append(
        policies.BestN(
          n=1, get_metric_fn=score, reverse=True, keep_checkpoints_without_metrics=False
        )
      )
    self._manager = _Manager(
      self._folder,
      item_handlers={
        'state': ocp.PyTreeCheckpointHandler(),
        'digests': ocp.JsonCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        create=create,
        cleanup_tmp_directories=create,
        preservation_policy=policies.AnyPreservationPolicy(preserved),
        best_fn=score,
        best_mode='min',
      ),
    )

  @property
  def latest(self) -> int | None:
    """Step of the latest checkpoint."""
    return self._manager.latest_step()

  @property
  def best(self) -> int | None:
    """Step of the best checkpoint; of the latest if none was scored."""
    return self._manager.best_step() or self.latest

  def scores(self, step: int) -> dict[str, float]:
    """Validation scores of a checkpoint; empty if it was not evaluated."""
    return dict(self._manager.metrics(step) or {})

  def names(self, part: str = 'params') -> set[str]:
    """Names in a part of the latest checkpoint with a readable description."""
    for step in self._newest_first():
      try:
        stored = self._stored(step)
        return set(stored['params'] if part == 'params' else stored.get(part) or {})
      except KeyError:
        log.warning('%s', _Damaged(self._folder, step, 'it names no networks').message)
      except _Damaged as error:
        log.warning('%s', error.message)
    raise self._none_whole()

  def _newest_first(self) -> list[int]:
    return sorted(self._manager.all_steps(), reverse=True)

  def _stored(self, step: int) -> Any:
    """Metadata of the arrays of a checkpoint: a tree of their shapes."""
    try:
      tree = self._manager.item_metadata(step).state.tree
      if not isinstance(tree, Mapping):
        raise ValueError('its description is none')
      _shapes(tree)
      return tree
    except Exception as error:  # Orbax may raise anything on damaged files.
      raise _Damaged(self._folder, step, error) from None

  def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> None:
    """Saves the state after `step` steps, asynchronously.

    Raises:
      RunError: this checkpoint, or the one before, could not be written.
      ConfigError: the checkpoint is saved, but `best_metric` is not in `metrics`.
    """
    if step in self._manager.all_steps():
      return
    arguments = ocp.args.Composite(
      state=ocp.args.PyTreeSave(jax.tree.map(_stand_in, state)),
      digests=ocp.args.JsonSave(_digests(state)),
    )
    try:
      self._manager.save(step, args=arguments, metrics=dict(metrics) if metrics else None)
    except self._refusals as error:
      raise self._not_written(error) from error
    if metrics and self._best_metric and self._best_metric not in metrics:
      raise ConfigError(
        f'config field best_metric={self._best_metric!r}: evaluations give no such score: '
        f'{suggestion(self._best_metric, metrics)}; step {step} is saved: set the field, and '
        're-run the command to resume from there'
      )

  def _not_written(self, error: Exception) -> RunError:
    kept = max(_steps(self._folder), default=None)
    left = f'that of step {kept} is intact' if kept is not None else 'there is no earlier one'
    return RunError(
      f'{self._folder}: a checkpoint could not be written ({_reason(error)}); {left}: fix this, '
      'then re-run the command to resume'
    )

  def restore(self, like: Any, step: int | None = None) -> Any:
    """Reads a checkpoint, or a part of it.

    Args:
      like: tree of `jax.ShapeDtypeStruct` with shardings: the state or a subtree.
      step: step of the checkpoint; None: the newest intact one.

    Raises:
      RunError: the checkpoint does not exist, is damaged, or does not fit `like`.
    """
    return self._restore(step, like) if step is not None else self.restore_newest(like)[1]

  def restore_newest(self, like: Any, set_aside: bool = False) -> tuple[int, Any]:
    """Reads the newest intact checkpoint; reports damaged ones.

    Args:
      like: see `restore`.
      set_aside: whether to move damaged checkpoints away, required when training resumes.

    Returns:
      Its step, and the state.

    Raises:
      RunError: there is no intact checkpoint, or it does not fit `like`.
    """
    damaged = []
    for step in self._newest_first():
      restored, error = None, None
      try:
        restored = self._restore(step, like)
      except _Damaged as found:
        error = found
      if mesh_lib.all_hosts(error is None):
        if set_aside and damaged:
          self._set_aside(damaged)
        return step, restored
      damaged.append(step)
      message = error.message if error else f'{self._folder}/{step}: is damaged on another host'
      log.warning('%s; using the one before, if there is one', message)
    raise self._none_whole()

  def _none_whole(self) -> RunError:
    if not _steps(self._folder):
      return RunError(f'{self._folder}: has no checkpoint: train that stage first')
    return RunError(
      f'{self._folder}: has no intact checkpoint: restore one from a backup, or remove '
      f'{self._folder.parent} and train that stage again'
    )

  def _set_aside(self, steps: list[int]) -> None:
    """Moves checkpoints away, so that training can save these steps again."""
    folder = self._folder.parent / DAMAGED_FOLDER
    if jax.process_index() == 0:
      files.make_folder(folder)
      for step in steps:
        files.move_folder(self._folder / str(step), folder / str(step))
        log.warning('%s/%d: moved to %s', self._folder, step, folder)
    mesh_lib.all_hosts(True)
    self._manager.reload()

  def _restore(self, step: int, like: Any) -> Any:
    stored = jax.tree.map(_stand_in, like)
    self._check_fits(stored, step)
    state = ocp.args.PyTreeRestore(
      item=stored,
      restore_args=ocp.checkpoint_utils.construct_restore_args(stored),
      partial_restore=True,
    )
    # Checkpoints of older versions have no digests.
    digested = (self._folder / str(step) / 'digests').is_dir()
    more = {'digests': ocp.args.JsonRestore()} if digested else {}
    try:
      loaded = self._manager.restore(step, args=ocp.args.Composite(state=state, **more))
    except Exception as error:  # Orbax may raise anything on damaged files.
      raise _Damaged(self._folder, step, error) from None
    restored = jax.tree.map(
      lambda leaf, value: value if leaf.size else value[:0].reshape(leaf.shape), like, loaded.state
    )
    digests = loaded.digests if digested else {}
    if not isinstance(digests, Mapping):
      raise _Damaged(self._folder, step, 'its checksums are none')
    for name, digest in _digests(restored).items():
      if digests.get(name, digest) != digest:
        raise _Damaged(self._folder, step, f'{name} is not what was saved')
    return restored

  def _check_fits(self, like: Any, step: int) -> None:
    """Compares names and shapes first, because orbax ignores missing arrays."""
    stored = _shapes(self._stored(step))
    for name, shape in _shapes(like).items():
      if stored.get(name) != shape:
        difference = f'is {stored[name]}' if name in stored else 'is not there'
        raise RunError(
          f'{self._folder}/{step}: {name} {difference}, but {shape} was expected: use the model '
          'settings that it was trained with (config.json beside it)'
        )

  def close(self) -> None:
    """Waits until everything is written.

    Raises:
      RunError: writing failed.
    """
    try:
      self._manager.wait_until_finished()
    except self._refusals as error:
      raise self._not_written(error) from error
    finally:
      self._manager.close()


# Exceptions of orbax for damaged or unexpected JSON. Errors of disks and buckets are not included:
# a best checkpoint whose score is temporarily unreadable would otherwise be removed.
_NOT_AS_WRITTEN = (
  ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class _Manager(ocp.CheckpointManager):
  """Treats a checkpoint with damaged scores or dates as one without them."""

  def wait_until_finished(self) -> None:
    # Orbax waits for the removal of unfinished folders only when it saves. A thread that still runs
    # when the process ends prints a long traceback.
    self._maybe_await_cleanup_tmp_directory()
    super().wait_until_finished()

  def metrics(self, step: int) -> dict[str, float] | None:
    try:
      metrics = super().metrics(step)
      if metrics is None or all(type(value) in (int, float) for value in metrics.values()):
        return metrics
    except _NOT_AS_WRITTEN as error:
      log.debug('%s/%d: %r', self.directory, step, error)
    log.warning('%s/%d: the scores of this checkpoint are damaged', self.directory, step)
    return None

  def _load_checkpoint_infos(self, skip_metadata_read: bool = False) -> list:
    try:
      return super()._load_checkpoint_infos(skip_metadata_read)
    except _NOT_AS_WRITTEN:
      # A date is damaged (`_CHECKPOINT_METADATA`). Dates are not used here.
      steps = super()._load_checkpoint_infos(skip_metadata_read=True)
      return [dataclasses.replace(info, metrics=self.metrics(info.step)) for info in steps]


@functools.cache
def _silence_abandoned_work() -> None:
  """Suppresses tracebacks for every array that orbax cancels when another array fails.

  Its coroutines raise an exception when they are closed, and threads of the array store find their
  event loop closed. Both can happen long after the failure was reported, so the suppression stays
  active until the process ends.
  """
  before = sys.unraisablehook

  def report(unraisable):
    source = unraisable.object
    ours = isinstance(source, types.CoroutineType) and 'orbax' in source.cr_code.co_filename
    if not ours and str(unraisable.exc_value) != 'Event loop is closed':
      before(unraisable)

  sys.unraisablehook = report


class _Damaged(RunError):
  """A checkpoint cannot be read, or differs from what was saved."""

  def __init__(self, folder: files.Path, step: int, error: Exception | str):
    self.message = f'{folder}/{step}: this checkpoint is damaged ({_reason(error)})'
    super().__init__(f'{self.message}: use the latest intact one (--checkpoint latest)')


def _reason(error: Exception | str) -> str:
  """First line of an error, without the paths and causes that orbax appends."""
  if isinstance(error, OSError) and error.errno:
    return os.strerror(error.errno)
  if 'No space left on device' in str(error):
    return 'No space left on device'
  first = (str(error).splitlines() or [''])[0].partition('. See full TensorStore')[0]
  return shown(f'{first[:150]}…' if len(first) > 150 else first or type(error).__name__)


def _steps(folder: files.Path) -> list[int]:
  """Steps of the complete checkpoints in a folder."""
  if files.in_bucket(folder):
    # Buckets have no rename. Orbax writes a last file; without it, a checkpoint is incomplete.
    with files.bucket_errors(folder):
      return sorted(ocp.utils.checkpoint_steps(folder))
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {name: tuple(leaf.shape) for name, leaf in _named(tree)}


def _named(tree: Any) -> list[tuple[str, Any]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf) for path, leaf in leaves]


def _stand_in(leaf: Any) -> Any:
  """Replaces empty arrays, as for codes of length zero, by one zero: orbax cannot save them."""
  if leaf.size:
    return leaf
  if isinstance(leaf, jax.ShapeDtypeStruct):
    return jax.ShapeDtypeStruct((1,), leaf.dtype, sharding=leaf.sharding)
  return jax.device_put(np.zeros(1, leaf.dtype), leaf.sharding)


def _digests(tree: Any) -> dict[str, int]:
  """CRC-32 of the bytes of every array that this host holds completely."""
  arrays = {
    name: leaf if leaf.is_fully_addressable else leaf.addressable_data(0)
    for name, leaf in _named(tree)
    if leaf.is_fully_addressable or leaf.is_fully_replicated
  }
  # Threads help because device copies and zlib release the GIL.
  with futures.ThreadPoolExecutor() as pool:
    crc = lambda array: zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return dict(zip(arrays, pool.map(crc, arrays.values()), strict=True))


def exists(folder: files.Path) -> bool:
  """Whether there are checkpoints in the folder of a stage."""
  return bool(_steps(folder / _FOLDER))
