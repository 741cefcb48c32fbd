"""Data: prepares folders of images, label maps and arrays, and reads them in batches."""

import pathlib

import ml_collections

from step_jax import files, places
from step_jax.data import builder, folders, pairs, swatches
from step_jax.data.labels import NONE as NO_LABELS
from step_jax.data.labels import Labels
from step_jax.data.pairs import PairSet
from step_jax.errors import DataError


def open_config(
  settings: ml_collections.ConfigDict, path: str = '', paired: bool = False
) -> PairSet:
  """Opens the data set of a configuration. Training and all applications use this function.

  Args:
    settings: `config.data`. Label maps and arrays are read if it has a palette.
    path: another data set to open with the same settings; empty: that of the settings.
    paired: whether pairs are required.

  Raises:
    DataError: see `open_data`; or the data set has single images, and pairs are required.
  """
  opened = open_data(
    path or settings.path,
    settings.layout,
    settings.val_fraction,
    settings.resize,
    settings.unreadable,
    Labels.of(settings),
  )
  if paired and not opened.paired:
    raise DataError(
      f'{path or settings.path}: holds lone pictures (layout unpaired), which serve the pretrain '
      'stage alone: give pairs'
    )
  return opened


def open_data(
  path: str,
  layout: str = 'auto',
  val_fraction: float = 0.1,
  resize: int = 0,
  unreadable: str = 'stop',
  labels: Labels = NO_LABELS,
) -> PairSet:
  """Opens a data set, and prepares it first if necessary.

  Args:
    path: a prepared data set; a folder of images; or `swatches`. A folder of images is prepared
      into the cache (`places.cache`) on first use, and again when its splits change, or the name,
      size or time of a file. Folders can be in a bucket; prepared sets are then copied to the
      cache.
    layout, val_fraction: see `folders.scan`.
    resize: shorter side of the images, px, or side of `swatches`; 0: no scaling.
    unreadable, labels: see `PairSet`.

  Raises:
    DataError: there is no usable data set at `path`.
  """
  return PairSet(_prepared(path, layout, val_fraction, resize, labels), unreadable, labels)


def _prepared(
  path: str, layout: str, val_fraction: float, resize: int, labels: Labels
) -> str | pathlib.Path:
  """Folder of the prepared data set; prepares it if it does not exist."""
  cache = places.cache() / 'data'
  if path in swatches.SETS and not pathlib.Path(path).exists():
    picture_set = swatches.picture_set(
      resize or 64, labelled=bool(labels.palette), regional=path == 'swatches_regional'
    )
  elif pairs.is_prepared(path):
    prepared = files.path(path)
    return pairs.fetch(prepared, cache) if files.in_bucket(prepared) else path
  else:
    picture_set = folders.scan(path, layout, val_fraction, labels)
  name = files.short_name(files.resolve(files.path(path)).name)
  folder = cache / f'{name}-{picture_set.fingerprint}-{resize}-{builder.VERSION}'
  if not pairs.is_prepared(folder):
    builder.prepare(picture_set, folder, resize)
  return folder


def sides(opened: PairSet, direction: str) -> tuple[str, str]:
  """Names, `A` or `B`, of the source and of the target image of an example.

  Args:
    opened: the data set; single images are both source and target.
    direction: `AtoB` or `BtoA`.
  """
  if not opened.paired:
    return 'A', 'A'
  return ('A', 'B') if direction == 'AtoB' else ('B', 'A')


def roles(opened: PairSet, direction: str) -> dict[str, str]:
  """Role -> name in an example: `source` and `target` (see `sides`), and `labels` and arrays.

  Label maps and arrays have the same name as their role. They are left out if they are not read.
  """
  source, target = sides(opened, direction)
  labels = ['labels'] if opened.labels.palette else []
  return {'source': source, 'target': target} | {name: name for name in (*labels, *opened.arrays)}
