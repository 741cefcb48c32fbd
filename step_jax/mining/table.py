"""The neighbour table of a data set: mined once, kept in the stage's folder."""

from collections.abc import Iterable, Sequence
import dataclasses
import logging
import pathlib
import re
import tempfile

import numpy as np

from step_jax.errors import ConfigError, DataError
from step_jax.mining import neighbors, styles

log = logging.getLogger(__name__)

_MINIMUM = 3


def scenes(names: Sequence[str], pattern: str) -> list[str] | None:
  """The scene of every picture: the first group of `pattern` in its name; None without a pattern.

  Raises:
    ConfigError: the pattern is not valid, has no group, or does not match a name.
  """
  if not pattern:
    return None
  try:
    expression = re.compile(pattern)
  except re.error as error:
    raise ConfigError(f'config field data.scene={pattern!r} is no valid pattern: {error}') from None
  found = [expression.search(name) for name in names]
  for name, match in zip(names, found, strict=True):
    if match is None or not expression.groups:
      raise ConfigError(f'config field data.scene={pattern!r} finds no scene in {name!r}')
  return [match.group(1) for match in found]


def fit_counts(
  count: int, num_nearest: int, num_farthest: int, groups: Sequence | None
) -> tuple[int, int]:
  """How many neighbours a set of `count` pictures can give, at most those asked for.

  The nearest and the farthest never overlap.

  Raises:
    DataError: too few pictures for any triplet.
  """
  largest = 1 if groups is None else int(np.unique(groups, return_counts=True)[1].max())
  nearest = min(num_nearest, count - largest, max(1, (count - 1) // 2))
  farthest = min(num_farthest, count - 1 - nearest)
  if count < _MINIMUM or nearest < 1 or farthest < 1:
    raise DataError(
      f'{count} pictures in {len(set(groups or range(count)))} scenes give no triplets: '
      f'pre-training needs at least {_MINIMUM} pictures, and more than one scene'
    )
  return nearest, farthest


def mine(
  features,
  batches: Iterable[dict],
  names: Sequence[str],
  num_nearest: int,
  num_farthest: int,
  groups: Sequence | None = None,
) -> neighbors.Neighbors:
  """Nearest and farthest pictures in style of every picture.

  Args:
    features: a loaded feature net (`weights.Features`).
    batches: of whole pictures under the key `target`; see `styles.style_vectors`.
    names: of all pictures, in order.
    num_nearest, num_farthest: neighbours to keep; fewer where the set is small.
    groups: scene of each picture, or None.
  """
  nearest, farthest = fit_counts(len(names), num_nearest, num_farthest, groups)
  if (nearest, farthest) != (num_nearest, num_farthest):
    log.warning(
      'only %d pictures: %d nearest, %d farthest neighbours each', len(names), nearest, farthest
    )
  with tempfile.TemporaryDirectory() as scratch:
    vectors = styles.style_vectors(
      features.module, features.params, batches, len(names), pathlib.Path(scratch) / 'vectors.npy'
    )
    return neighbors.find_neighbors(vectors, nearest, farthest, groups)


def load_or_mine(path: pathlib.Path, key: str, mine_now) -> neighbors.Neighbors:
  """The table kept in `path` if it was made under the same key, else a new one, which is then kept.

  Args:
    path: npz file.
    key: everything that the table depends on, as text.
    mine_now: makes the table.
  """
  if path.is_file():
    with np.load(path, allow_pickle=False) as file:
      if str(file['key']) == key:
        fields = dataclasses.fields(neighbors.Neighbors)
        return neighbors.Neighbors(**{field.name: file[field.name] for field in fields})
  found = mine_now()
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.stem}.part.npz')
  np.savez_compressed(part, key=key, **dataclasses.asdict(found))
  part.replace(path)
  return found
