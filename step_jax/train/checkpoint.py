"""Checkpoints of a stage.

The latest and the best, written in the background, whole or not at all.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from step_jax.errors import RunError

_FOLDER = 'checkpoints'


class Checkpoints:
  """The checkpoints below a stage's folder.

  Args:
    folder: of the stage.
    best_metric: metric by which the best checkpoint is kept beside the latest; lower is better.
    create: whether to make the folder; readers do not.
  """

  def __init__(self, folder: pathlib.Path, best_metric: str = '', create: bool = True):
    self._folder = (folder / _FOLDER).absolute()
    policies = ocp.checkpoint_managers
    # Two of the latest: should the newest be damaged, there is one before it.
    kept = [policies.LatestN(2)]
    score = None
    if best_metric:
      score = lambda metrics: (metrics or {}).get(best_metric, float('inf'))
      kept.append(
        policies.BestN(
          n=1, get_metric_fn=score, reverse=True, keep_checkpoints_without_metrics=False
        )
      )
    self._manager = ocp.CheckpointManager(
      self._folder,
      item_handlers={'state': ocp.PyTreeCheckpointHandler()},
      options=ocp.CheckpointManagerOptions(
        create=create,
        preservation_policy=policies.AnyPreservationPolicy(kept),
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
    """Step of the best checkpoint; the latest where none was scored."""
    return self._manager.best_step() or self.latest

  def networks(self) -> set[str]:
    """Names of the networks in the latest checkpoint."""
    return set(self._stored(self.latest)['params'])

  def _stored(self, step: int) -> Any:
    return self._manager.item_metadata(step).state.tree

  def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> None:
    """Saves the state after `step` steps; returns before it is written."""
    if step in self._manager.all_steps():
      return
    arguments = ocp.args.Composite(state=ocp.args.PyTreeSave(state))
    self._manager.save(step, args=arguments, metrics=dict(metrics) if metrics else None)

  def restore(self, like: Any, step: int | None = None) -> Any:
    """Reads a checkpoint, or the part of it that `like` names.

    Args:
      like: tree of `jax.ShapeDtypeStruct` with shardings, all of the state or a subtree.
      step: which; the latest by default.

    Raises:
      RunError: there is none, or it does not fit `like`.
    """
    step = self.latest if step is None else step
    if step is None:
      raise RunError(f'{self._folder}: holds no checkpoint: train that stage first')
    self._check_fits(like, step)
    arguments = ocp.args.PyTreeRestore(
      item=like,
      restore_args=ocp.checkpoint_utils.construct_restore_args(like),
      partial_restore=True,
    )
    return self._manager.restore(step, args=ocp.args.Composite(state=arguments)).state

  def _check_fits(self, like: Any, step: int) -> None:
    """Orbax leaves holes where a checkpoint lacks something, so compare names and shapes first."""
    stored = _shapes(self._stored(step))
    for name, shape in _shapes(like).items():
      if stored.get(name) != shape:
        found = f'is {stored[name]}' if name in stored else 'is not there'
        raise RunError(
          f'{self._folder}/{step}: {name} {found}, but {shape} was expected: use the model '
          'settings that it was trained with (config.json beside it)'
        )

  def close(self) -> None:
    """Waits until everything is written."""
    self._manager.wait_until_finished()
    self._manager.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
    for path, leaf in leaves
  }


def exists(folder: pathlib.Path) -> bool:
  """Whether a stage's folder holds checkpoints."""
  return (folder / _FOLDER).is_dir() and any((folder / _FOLDER).iterdir())
