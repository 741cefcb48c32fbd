"""Pictures in: folders to prepared pairs, pairs to batches."""

import pathlib

from step_jax import files, places
from step_jax.data import folders, pairs, swatches
from step_jax.data.pairs import PairSet


def open_data(
  path: str, layout: str = 'auto', val_fraction: float = 0.1, resize: int = 0
) -> PairSet:
  """Opens a data set, preparing it first where need be.

  Args:
    path: a folder that `prepare` made; or a folder of pictures, which is prepared into the cache on
      first use (`places.cache`) and again when its files change; or `swatches`. Either folder can
      be in a bucket; a prepared one is then copied to the cache.
    layout, val_fraction: see `folders.scan`.
    resize: shorter side in pixels; the side of `swatches`; 0 keeps the size of pictures.

  Raises:
    DataError: nothing usable there.
  """
  if path == 'swatches' and not pathlib.Path(path).exists():
    picture_set = swatches.picture_set(resize or 64)
  elif pairs.is_prepared(path):
    found = files.path(path)
    return pairs.fetch(found, places.cache() / 'data') if files.in_bucket(found) else PairSet(path)
  else:
    picture_set = folders.scan(path, layout, val_fraction)
  name = files.short_name(files.resolve(files.path(path)).name)
  name = f'{name}-{picture_set.fingerprint}-{resize}-{pairs.VERSION}'
  folder = places.cache() / 'data' / name
  if pairs.is_prepared(folder):
    return PairSet(folder)
  return pairs.prepare(picture_set, folder, resize)


def sides(found: PairSet, direction: str) -> tuple[str, str]:
  """Which picture of an example is the source, and which the target: two of `A` and `B`.

  Args:
    found: the data set; lone pictures are their own source.
    direction: `AtoB` or `BtoA`.
  """
  if not found.paired:
    return 'A', 'A'
  return ('A', 'B') if direction == 'AtoB' else ('B', 'A')
