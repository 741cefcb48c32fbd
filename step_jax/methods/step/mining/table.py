"""The neighbour table of a data set, mined once and stored in the folder of the stage."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import logging
import pathlib
import re
import shutil

import jax
import numpy as np

from step_jax import files, untrusted
from step_jax.errors import ConfigError, DataError
from step_jax.methods.step.mining import styles
from step_jax.methods.step.search import neighbors

log = logging.getLogger(__name__)

_MINIMUM = 3
REMEDY = 'remove it, and re-run the command to mine again'


def scenes(names: Sequence[str], pattern: str) -> list[str] | None:
  """Scene of every image: the first group of `pattern` in its name; None without a pattern.

  Raises:
    ConfigError: the pattern is not valid, has no group, or does not match a name.
  """
  if not pattern:
    return None
  try:
    expression = re.compile(pattern)
  except re.error as error:
    raise ConfigError(f'config field data.scene={pattern!r} is no valid pattern: {error}') from None
  matches = [expression.search(name) for name in names]
  for name, match in zip(names, matches, strict=True):
    if match is None or not expression.groups:
      raise ConfigError(f'config field data.scene={pattern!r} finds no scene in {name!r}')
  return [match.group(1) for match in matches]


def fit_counts(
  count: int, num_nearest: int, num_farthest: int, groups: Sequence | None
) -> tuple[int, int]:
  """Number of neighbours for a set of `count` images, at most the requested numbers.

  The nearest and the farthest never overlap.

  Raises:
    DataError: there are too few images for triplets.
  """
  largest = 1 if groups is None else int(np.unique(groups, return_counts=True)[1].max())
  nearest = min(num_nearest, count - largest, max(1, (count - 1) // 2))
  farthest = min(num_farthest, count - 1 - nearest)
  if count < _MINIMUM or nearest < 1 or farthest < 1:
    raise DataError(
      f'{count} images in {len(set(groups or range(count)))} scenes give no triplets: '
      f'pre-training needs at least {_MINIMUM} images, and more than one scene (data.scene)'
    )
  return nearest, farthest


def mine(
  features,
  batches: Callable[[int], Iterable[dict]],
  names: Sequence[str],
  num_nearest: int,
  num_farthest: int,
  groups: Sequence | None,
  scratch: pathlib.Path,
  projection: int = 0,
  tap_weights: str = 'equal',
) -> neighbors.Neighbors:
  """Searches the nearest and farthest images in style of each image.

  Args:
    features: a loaded feature network (`weights.Features`).
    batches: number of an image -> batches of whole images from that image on; see
      `styles.style_vectors`.
    names: names of all images, in order.
    num_nearest, num_farthest: numbers of neighbours; fewer for small data sets.
    groups: scene of each image, or None.
    scratch: folder for vectors and progress, from which an interrupted call resumes.
    projection, tap_weights: see `styles.style_vectors`.
  """
  nearest, farthest = fit_counts(len(names), num_nearest, num_farthest, groups)
  if (nearest, farthest) != (num_nearest, num_farthest):
    log.warning(
      'only %d images: each has %d nearest and %d farthest neighbours',
      len(names),
      nearest,
      farthest,
    )
  vectors = styles.style_vectors(
    features.module, features.params, batches, len(names), scratch, projection, tap_weights
  )
  progress = scratch / 'search.npz'
  return neighbors.find_neighbors(vectors, nearest, farthest, groups, progress=progress)


def _check(mined: neighbors.Neighbors) -> neighbors.Neighbors:
  """Checks that the indices in a table are valid.

  Raises:
    ValueError: they are not.
  """
  count = len(mined.nearest)
  for array in (mined.nearest, mined.farthest):
    if array.dtype != np.int32 or array.ndim != 2 or len(array) != count or not array.shape[1]:
      raise ValueError('no table of neighbours')
    if array.min(initial=0) < 0 or array.max(initial=0) >= count:
      raise ValueError('neighbours that are no pictures')
  return mined


def load_or_mine(
  path: files.Path, key: str, mine_now: Callable[[pathlib.Path], neighbors.Neighbors]
) -> neighbors.Neighbors:
  """Reads the table in `path` if it has the same key; otherwise mines and writes a new one.

  Args:
    path: npz file on this machine or in a bucket; intermediate files are on this machine.
    key: everything that the table depends on, as text.
    mine_now: mines the table; its argument is a folder from which an interrupted call resumes.

  Raises:
    RunError: the existing table is damaged.
  """
  if path.is_file():
    stored = untrusted.read_arrays(path, REMEDY)
    if str(stored.pop('key', '')) == key:
      try:
        return _check(neighbors.Neighbors(**stored))
      except (TypeError, ValueError) as error:
        raise untrusted.damaged(path, error, REMEDY) from None
  # Each host mines separately, in its own folder, because hosts may share a file system.
  scratch = files.scratch(path.with_name(f'.{path.stem}-{jax.process_index()}'))
  key_path = scratch / 'key'
  if not key_path.is_file() or key_path.read_text('utf-8') != key:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    key_path.write_text(key, 'utf-8')
  mined = mine_now(scratch)
  # The results of all hosts are equal. Only one host writes, because simultaneous writers could
  # publish a partial file of each other.
  if jax.process_index() == 0:
    files.write_arrays(path, {'key': key, **dataclasses.asdict(mined)}, compress=True)
  shutil.rmtree(scratch)
  return mined
