"""Checks that a stage uses the images of its earlier training, and of the stage it starts from."""

import ml_collections

from step_jax import config as config_lib
from step_jax import files, places
from step_jax.data import contents as contents_lib
from step_jax.data.pairs import PairSet
from step_jax.train import checkpoint
from step_jax.train import stage as stage_lib

# Stages that continue on the data of the stage before; `translate` may use other data than
# pre-training did.
_CONTINUING = ('finetune', 'mapper')
_REMEDY = 'or accept this by --change-config'


def problem(config: ml_collections.ConfigDict, workdir: files.Path, dataset: PairSet) -> str:
  """Why a stage must not train on this data; empty if it may.

  A stage with a checkpoint needs the images that it was trained on. A stage that starts from
  another one must not validate on training images of that stage, or train on its validation images;
  `finetune` and `mapper` need exactly the data of that stage.

  Args:
    config: configuration of the stage.
    workdir: work directory of the run.
    dataset: data set of the configuration.

  Raises:
    RunError: the record of the images of a stage, or its configuration, is damaged.
  """
  folder = stage_lib.stage_folder(workdir, config.stage)
  if checkpoint.exists(folder):
    return _changed(folder, dataset)
  if not config.get('init_from', ''):
    return ''
  before = stage_lib.stage_folder(workdir, config.init_from)
  if not checkpoint.exists(before) or not (before / config_lib.FILE).is_file():
    return ''
  return _unlike(config, before, dataset)


def is_same_path(a: str, b: str) -> bool:
  """Whether two values of `data.path` name the same folder."""
  return places.expand(a).resolve() == places.expand(b).resolve()


def _changed(folder: files.Path, dataset: PairSet) -> str:
  recorded = contents_lib.read(folder)
  if recorded is None:
    remedy = f'train in another --workdir, {_REMEDY}'
    return f'{contents_lib.unrecorded(folder)}: {remedy}' if dataset.held_out else ''
  lines = contents_lib.differences(recorded, contents_lib.of(dataset))
  if not lines:
    return ''
  listed = '\n  '.join([f'{folder}: was trained on other images than those there are now:', *lines])
  return f'{listed}\nrestore the images, or give another --workdir; {_REMEDY}'


def _unlike(config: ml_collections.ConfigDict, before: files.Path, dataset: PairSet) -> str:
  old = config_lib.read(before)
  path = old.get('data', {}).get('path', '')
  same_path = is_same_path(path, config.data.path)
  recorded = contents_lib.read(before)
  now = contents_lib.of(dataset)
  differing = []
  if config.stage in _CONTINUING:
    # An imported stage may name no data.
    if path and old.data.direction != config.data.direction:
      differing.append(f'data.direction is {config.data.direction}, not {old.data.direction}')
    if recorded is not None:
      differing += contents_lib.differences(recorded, now)
    elif path and not same_path:
      differing.append(f'data.path is {config.data.path}, not {path}')
  elif recorded is not None:
    differing += [
      f'{len(names)} {a} images of that stage are {b} images now'
      for a, b in (contents_lib.SPLITS, contents_lib.SPLITS[::-1])
      if (names := contents_lib.shared(recorded, a, now, b))
    ]
  if differing:
    return (
      f'{config.stage}: its data is not that of {before}, which it starts from '
      f'({"; ".join(differing)}): give the data of that stage, {_REMEDY}'
    )
  if recorded is None and same_path and dataset.held_out:
    return f'{contents_lib.unrecorded(before)}: train that stage again, {_REMEDY}'
  return ''
