"""Pictures in: folders to prepared pairs, pairs to batches."""

import pathlib

import ml_collections

from step_jax import files, places
from step_jax.data import folders, pairs, swatches
from step_jax.data.pairs import PairSet
from step_jax.errors import DataError


def open_config(
  settings: ml_collections.ConfigDict, path: str = '', paired: bool = False
) -> PairSet:
  """Opens the data set that a configuration names: the one way to it for training and all else.

  Args:
    settings: `config.data`.
    path: another data set, to be opened with the same settings.
    paired: whether only pairs will do.

  Raises:
    DataError: as `open_data`; or the set has lone pictures where pairs are needed.
  """
  found = open_data(
    path or settings.path,
    settings.layout,
    settings.val_fraction,
    settings.resize,
    settings.unreadable,
  )
  if paired and not found.paired:
    raise DataError(
      f'{path or settings.path}: holds lone pictures (layout unpaired), which serve the pretrain '
      'stage alone: give pairs'
    )
  return found


def open_data(
  path: str,
  layout: str = 'auto',
  val_fraction: float = 0.1,
  resize: int = 0,
  unreadable: str = 'stop',
) -> PairSet:
  """Opens a data set, preparing it first where need be.

  Args:
    path: a folder that `prepare` made; or a folder of pictures, which is prepared into the cache on
      first use (`places.cache`) and again when its splits or its files change (by name, size or
      time); or `swatches`. Either folder can be in a bucket; a prepared one is then copied to the
      cache.
    layout, val_fraction: see `folders.scan`.
    resize: shorter side in pixels; the side of `swatches`; 0 keeps the size of pictures.
    unreadable: see `PairSet`.

  Raises:
    DataError: nothing usable there.
  """
  return PairSet(_prepared(path, layout, val_fraction, resize), unreadable)


def _prepared(path: str, layout: str, val_fraction: float, resize: int) -> str | pathlib.Path:
  """The folder of the prepared set, which is made if it is not there."""
  cache = places.cache() / 'data'
  if path == 'swatches' and not pathlib.Path(path).exists():
    picture_set = swatches.picture_set(resize or 64)
  elif pairs.is_prepared(path):
    found = files.path(path)
    return pairs.fetch(found, cache) if files.in_bucket(found) else path
  else:
    picture_set = folders.scan(path, layout, val_fraction)
  name = files.short_name(files.resolve(files.path(path)).name)
  folder = cache / f'{name}-{picture_set.fingerprint}-{resize}-{pairs.VERSION}'
  if not pairs.is_prepared(folder):
    pairs.prepare(picture_set, folder, resize)
  return folder


def sides(found: PairSet, direction: str) -> tuple[str, str]:
  """Which picture of an example is the source, and which the target: two of `A` and `B`.

  Args:
    found: the data set; lone pictures are their own source.
    direction: `AtoB` or `BtoA`.
  """
  if not found.paired:
    return 'A', 'A'
  return ('A', 'B') if direction == 'AtoB' else ('B', 'A')
