"""Images, label maps and arrays: folders to prepared sets, these to batches."""

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
  """Opens the data set that a configuration names: the one way to it for training and all else.

  Args:
    settings: `config.data`. Label maps and arrays are read where it names a palette.
    path: another data set, to be opened with the same settings.
    paired: whether only pairs will do.

  Raises:
    DataError: as `open_data`; or the set has lone pictures where pairs are needed.
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
  """Opens a data set, preparing it first where need be.

  Args:
    path: a folder that `prepare` made; or a folder of pictures, which is prepared into the cache on
      first use (`places.cache`) and again when its splits or its files change (by name, size or
      time); or `swatches`. Either folder can be in a bucket; a prepared one is then copied to the
      cache.
    layout, val_fraction: see `folders.scan`.
    resize: shorter side in pixels; the side of `swatches`; 0 keeps the size of pictures.
    unreadable, labels: see `PairSet`.

  Raises:
    DataError: nothing usable there.
  """
  return PairSet(_prepared(path, layout, val_fraction, resize, labels), unreadable, labels)


def _prepared(
  path: str, layout: str, val_fraction: float, resize: int, labels: Labels
) -> str | pathlib.Path:
  """The folder of the prepared set, which is made if it is not there."""
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
  """Which picture of an example is the source, and which the target: two of `A` and `B`.

  Args:
    opened: the data set; lone pictures are their own source.
    direction: `AtoB` or `BtoA`.
  """
  if not opened.paired:
    return 'A', 'A'
  return ('A', 'B') if direction == 'AtoB' else ('B', 'A')


def roles(opened: PairSet, direction: str) -> dict[str, str]:
  """What each part of an example is for: role -> its name in the example.

  `source` and `target`, see `sides`; and `labels` and arrays, which are called alike, where they
  are read.
  """
  source, target = sides(opened, direction)
  labels = ['labels'] if opened.labels.palette else []
  return {'source': source, 'target': target} | {name: name for name in (*labels, *opened.arrays)}
