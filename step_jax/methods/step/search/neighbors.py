"""Exact nearest and farthest neighbours by Euclidean distance, without an N x N matrix.

Squared distances come from blocked matrix products, which have rounding errors. Each pair of blocks
is multiplied once, for the rows of both. The candidates of a row are ranked by lower bounds of
their costs. Candidates whose bounds overlap are compared by direct differences in float64. If the
bounds do not determine the candidates, the row is searched again with more candidates.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import tqdm

from step_jax import files, untrusted

# Number of additional candidates, and its growth factor if they are too few.
_SPARE = 8
_GROWTH = 8
# Columns per product, which limits memory and the length of float32 sums.
_CHUNK = 16384
# Number of rows whose mean is used as origin.
_CENTER_ROWS = 256
# Bound of accumulated rounding errors in standard deviations (Higham and Mary 2019, thm. 2.4).
_ROUNDING_SIGMAS = 8
# Half a unit in the last place of float32.
_UNIT = 2.0**-24
# Rounding errors of a distance except those of its product, in units of the sum of both squared
# norms: four for the centering of the vectors, one for the norms, one for their sum, two for the
# difference to the product (at most twice that sum), two for the bound, two for second-order terms.
_NORM_ROUNDINGS = 12


@dataclasses.dataclass(frozen=True)
class Neighbors:
  """The nearest and farthest other items of each of N items.

  Attributes:
    nearest: int32 `[N, k]`, nearest first; never the item itself.
    farthest: int32 `[N, m]`, farthest first.
  """

  nearest: np.ndarray
  farthest: np.ndarray


def find_neighbors(
  vectors: np.ndarray,
  num_nearest: int,
  num_farthest: int,
  groups: Sequence | None = None,
  block: int = 1024,
  dtype: str = 'float32',
  progress: pathlib.Path | None = None,
) -> Neighbors:
  """The k nearest and m farthest neighbours of each row, equal to a float64 search; ties by index.

  Memory holds two blocks (one with all columns) and lists of `k + m` candidates per row. All
  devices of this host share the products.

  Args:
    vectors: float32 `[N, D]`, in memory or on disk; indexed by rows and a slice of columns.
    num_nearest: k; at most the number of possible neighbours of any item.
    num_farthest: m; less than N.
    groups: one label per item; nearest neighbours are then only from other groups (StEP's rule for
      images of one scene). Farthest neighbours are not restricted.
    block: rows and columns of the products.
    dtype: type of the products; `bfloat16` is faster on accelerators, but more candidates are then
      compared exactly.
    progress: file for the state of the search, from which it resumes if interrupted; removed at
      the end. It must belong to the same vectors and arguments.

  Raises:
    ValueError: fewer than k items are allowed as nearest, or fewer than m as farthest.
  """
  count = len(vectors)
  labels = (
    np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
  )
  allowed = count - np.bincount(labels).max()
  if num_nearest > allowed or num_farthest >= count:
    raise ValueError(
      f'{count} items have at most {allowed} allowed nearest and {count - 1} farthest neighbours; '
      f'{num_nearest} and {num_farthest} were requested'
    )
  search = _Search.of(vectors, labels.astype(np.int32), block, dtype)
  nearest = np.empty((count, num_nearest), np.int32)
  farthest = np.empty((count, num_farthest), np.int32)
  pending, spare = np.arange(count), _SPARE
  while len(pending):
    keep = min(num_nearest + spare, allowed), min(num_farthest + spare, count - 1)
    all_rows = len(pending) == count
    near, far = search.candidates(pending, keep, progress if all_rows else None)
    near_apart = search.apart(pending, near, keep[0] == allowed)
    far_apart = search.apart(pending, far, keep[1] == count - 1)
    unsettled = []
    for place, row in enumerate(pending):
      settle = functools.partial(_settle, search, row)
      first = settle(near.index[place], near_apart[place], num_nearest, 1)
      last = settle(far.index[place], far_apart[place], num_farthest, -1)
      if first is None or last is None:
        unsettled.append(row)
      else:
        nearest[row], farthest[row] = first, last
    pending, spare = np.array(unsettled, int), spare * _GROWTH
  if progress:
    progress.unlink(missing_ok=True)
  return Neighbors(nearest, farthest)


class _Items(NamedTuple):
  """Properties of the items of a block; index -1 for padding."""

  index: jax.Array  # int32 [B]
  label: jax.Array  # int32 [B]
  norm: jax.Array  # float32 [B], squared


class _Best(NamedTuple):
  """Candidates with the lowest costs, in order of their lower bounds.

  The cost is the squared distance for the nearest, and minus that for the farthest.
  """

  lowest: np.ndarray  # float32 [N, K], lower bound of the cost; infinite for none
  index: np.ndarray  # int32 [N, K]

  @classmethod
  def none(cls, count: int, keep: int) -> '_Best':
    return cls(np.full((count, keep), np.inf, np.float32), np.full((count, keep), -1, np.int32))


@dataclasses.dataclass(frozen=True)
class _Search:
  """The vectors, and the settings of their products."""

  vectors: np.ndarray
  labels: np.ndarray
  center: np.ndarray
  norms: np.ndarray
  block: int
  dtype: np.dtype
  mesh: jax.sharding.Mesh

  @classmethod
  def of(cls, vectors, labels, block, dtype) -> '_Search':
    # A translation does not change distances, and rounding errors are smaller near the origin.
    some = np.linspace(0, len(vectors) - 1, min(len(vectors), _CENTER_ROWS)).astype(int)
    center = np.concatenate([vectors[some, columns].mean(axis=0) for columns in _chunks(vectors)])
    norms = np.zeros(len(vectors))
    for start in range(0, len(vectors), block):
      rows = slice(start, start + block)
      for columns in _chunks(vectors):
        part = vectors[rows, columns] - center[columns]
        norms[rows] += np.einsum('nd,nd->n', part, part, dtype=np.float64)
    devices = jax.local_devices()
    mesh = jax.make_mesh(
      (len(devices),), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
    )
    # At least two blocks unless there are few vectors, because pairs of blocks save work. The rows
    # of a block are split over the devices.
    size = min(block, -(-len(vectors) // 2)) if len(vectors) > block // 2 else len(vectors)
    size = -(-size // len(devices)) * len(devices)
    return cls(vectors, labels, center, norms, size, jnp.dtype(dtype), mesh)

  @property
  def rounding(self) -> float:
    """Rounding error of a product of two vectors, relative to the product of their lengths."""
    width = self.vectors.shape[1]
    # Errors of sums within a chunk of columns, and of the sum of chunks.
    sums = _UNIT * (_ROUNDING_SIGMAS * np.sqrt(min(_CHUNK, width)) + len(_chunks(self.vectors)) - 1)
    if self.dtype == jnp.float32:
      return sums
    # Both factors are rounded, each by at most half of this.
    return sums + 1.01 * float(jnp.finfo(self.dtype).eps)

  def apart(self, rows: np.ndarray, best: _Best, complete: bool) -> np.ndarray:
    """Whether a candidate and those before it certainly cost less than all others, bool `[N, K]`.

    Args:
      rows: rows of the candidates, `[N]`.
      best: the candidates.
      complete: whether there are no other candidates.
    """
    errors = _errors(self.rounding, self.norms[rows, None], self.norms[best.index])
    highest = np.maximum.accumulate(best.lowest + 2 * errors, axis=1)
    # The cost of others is at least the lower bound of the last candidate.
    beyond = np.full(len(rows), np.inf) if complete else best.lowest[:, -1]
    return highest < np.column_stack([best.lowest[:, 1:], beyond])

  def distances(self, row: int, others: np.ndarray) -> np.ndarray:
    """Exact squared distances, float64 `[len(others)]`."""
    total = np.zeros(len(others))
    for columns in _chunks(self.vectors):
      mine = self.vectors[row : row + 1, columns].astype(np.float64)
      total += np.square(self.vectors[others, columns] - mine).sum(axis=1)
    return total

  def candidates(
    self, rows: np.ndarray, keep: tuple[int, int], progress: pathlib.Path | None
  ) -> tuple[_Best, _Best]:
    """Nearest and farthest of `rows` by rounded distances, `keep` of each, `[len(rows), …]`."""
    near, far = (_Best.none(len(rows), size) for size in keep)
    keys = np.arange(len(self.vectors))
    symmetric = len(rows) == len(keys)
    key_blocks = [keys[i : i + self.block] for i in range(0, len(keys), self.block)]
    row_starts = range(0, len(rows), self.block)
    first = 0
    if progress and progress.is_file():
      first, near, far = _load_progress(progress, near, far)
    tiles = sum(len(key_blocks) - (i if symmetric else 0) for i in range(len(row_starts)))
    with tqdm.tqdm(total=tiles, desc='mining', unit='tile', disable=tiles < 2 or None) as bar:
      for i, start in enumerate(row_starts):
        mine = slice(start, start + self.block)
        if i < first:
          bar.update(len(key_blocks) - i)
          continue
        queries, query_items = list(self._load(rows[mine], split=True)), self._items(rows[mine])
        for j, block in enumerate(key_blocks):
          if symmetric and j < i:
            continue
          products = self._products(queries, block)
          items = self._items(block)
          self._fold(near, far, mine, products, query_items, items)
          if symmetric and i != j:
            theirs = slice(block[0], block[0] + self.block)
            self._fold(near, far, theirs, products.T, items, query_items)
          bar.update()
        if progress:
          _save(progress, i + 1, near, far)
    return near, far

  def _load(self, rows: np.ndarray, split: bool) -> Iterator[jax.Array]:
    """Yields the centered vectors of a block, chunk by chunk, padded to the size of a block."""
    sharding = NamedSharding(self.mesh, PartitionSpec('data' if split else None))
    for columns in _chunks(self.vectors):
      part = np.zeros((self.block, columns.stop - columns.start), self.dtype)
      part[: len(rows)] = self.vectors[rows, columns] - self.center[columns]
      yield jax.device_put(part, sharding)

  def _products(self, queries: Sequence[jax.Array], rows: np.ndarray) -> jax.Array:
    products = jnp.zeros(())
    for query, key in zip(queries, self._load(rows, split=False), strict=True):
      products = _add_products(products, query, key)
    return products

  def _items(self, rows: np.ndarray) -> _Items:
    index = np.full(self.block, -1, np.int32)
    index[: len(rows)] = rows
    norms = np.where(index < 0, 0, self.norms[index]).astype(np.float32)
    return _Items(index, np.where(index < 0, -1, self.labels[index]), norms)

  def _fold(self, near, far, rows: slice, products, query_items, key_items) -> None:
    """Merges a tile into the lists of its rows, in place."""
    lists = [_Best(*(_fill(values[rows], self.block) for values in best)) for best in (near, far)]
    merged = jax.device_get(_merge(products, self.rounding, query_items, key_items, *lists))
    for best, folded in zip((near, far), merged, strict=True):
      for values, new in zip(best, folded, strict=True):
        values[rows] = new[: len(values[rows])]


@jax.jit
def _add_products(products, queries, keys):
  return products + jnp.matmul(
    queries, keys.T, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
  )


def _errors(rounding, norms, other_norms):
  """Bound of the rounding error of a squared distance; `norms` are squared."""
  # The product counts twice. Separate roots, because products of norms could overflow or underflow.
  lengths = norms**0.5 * other_norms**0.5
  return 2 * rounding * lengths + _NORM_ROUNDINGS * _UNIT * (norms + other_norms)


@jax.jit
def _merge(products, rounding, queries: _Items, keys: _Items, near: _Best, far: _Best):
  norms, other_norms = queries.norm[:, None], keys.norm[None]
  distance = norms + other_norms - 2 * products
  errors = _errors(rounding, norms, other_norms)
  real = (keys.index >= 0)[None]
  other = queries.label[:, None] != keys.label[None]
  itself = queries.index[:, None] == keys.index[None]
  index = jnp.broadcast_to(keys.index[None], distance.shape)

  def merge(best, cost, allowed):
    lowest = jnp.concatenate([best.lowest, jnp.where(allowed, cost - errors, jnp.inf)], axis=1)
    least, place = jax.lax.top_k(-lowest, best.lowest.shape[1])
    indices = jnp.concatenate([best.index, index], axis=1)
    return _Best(-least, jnp.take_along_axis(indices, place, axis=1))

  return merge(near, distance, real & other), merge(far, -distance, real & ~itself)


def _settle(search: _Search, row: int, index, apart, count: int, sign: int) -> np.ndarray | None:
  """The first `count` candidates in their exact order; None if more candidates are needed.

  Args:
    search: the search, which computes exact distances.
    row: row of the candidates.
    index: indices of the candidates.
    apart: see `_Search.apart`.
    count: number of neighbours.
    sign: 1 if the cost is the distance, -1 if it is minus the distance.
  """
  order = index.copy()
  start = 0
  while start < count:
    ends = np.flatnonzero(apart[start:])
    if not len(ends):
      return None
    end = start + ends[0] + 1
    if end > start + 1:
      together = np.sort(index[start:end])
      exact = sign * search.distances(row, together)
      order[start:end] = together[np.argsort(exact, kind='stable')]
    start = end
  return order[:count]


def _chunks(vectors) -> list[slice]:
  width = vectors.shape[1]
  return [slice(start, min(start + _CHUNK, width)) for start in range(0, width, _CHUNK)]


def _fill(values: np.ndarray, size: int) -> np.ndarray:
  return np.pad(values, ((0, size - len(values)), (0, 0)), mode='edge')


def _load_progress(path: pathlib.Path, near: _Best, far: _Best) -> tuple[int, _Best, _Best]:
  """Reads a file of `_save`, with the shapes and types of the given lists."""
  remedy = f'remove {path.parent}, and re-run the command to start over'
  saved = untrusted.read_arrays(path, remedy)
  arrays = {}
  for name, lists in (('near', near), ('far', far)):
    for field, like in lists._asdict().items():
      array = arrays[name, field] = saved.get(f'{name}_{field}')
      if array is None or array.shape != like.shape or array.dtype != like.dtype:
        raise untrusted.damaged(path, f'no {name}_{field}', remedy)
      if field == 'index' and array.max(initial=-1) >= len(array):
        raise untrusted.damaged(path, 'indices of neighbours are too large', remedy)
  first = saved.get('first')
  if first is None or first.shape != () or first.dtype.kind != 'i' or first < 0:
    raise untrusted.damaged(path, 'no first', remedy)
  near, far = (_Best(arrays[name, 'lowest'], arrays[name, 'index']) for name in ('near', 'far'))
  return int(first), near, far


def _save(path: pathlib.Path, first: int, near: _Best, far: _Best) -> None:
  lists = {'near': near, 'far': far}
  arrays = {
    f'{n}_{field}': getattr(best, field) for n, best in lists.items() for field in _Best._fields
  }
  files.write_arrays(path, {'first': first, **arrays})
