"""Exact nearest and farthest neighbours by Euclidean distance, without an N x N matrix."""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

# Candidates kept beyond those asked for: blocked products round, the exact re-ranking settles the
# order among these.
_SPARE = 8
_RUN = 4096


@dataclasses.dataclass(frozen=True)
class Neighbors:
  """For each of N items, the nearest and farthest others.

  Attributes:
    nearest: int32 `[N, k]`, nearest first; never the item itself.
    nearest_distance: float64 `[N, k]`, squared distances.
    farthest: int32 `[N, m]`, farthest first.
    farthest_distance: float64 `[N, m]`.
  """

  nearest: np.ndarray
  nearest_distance: np.ndarray
  farthest: np.ndarray
  farthest_distance: np.ndarray


def find_neighbors(
  vectors: np.ndarray,
  num_nearest: int,
  num_farthest: int,
  groups: Sequence | None = None,
  block: int = 1024,
) -> Neighbors:
  """The exact k nearest and m farthest neighbours of every row.

  Squared distances come from blocked matrix products; the candidates they name are ranked again by
  direct differences in float64, ties by index.

  Args:
    vectors: float32 `[N, D]`, in memory or memory-mapped.
    num_nearest: k; at most the number of possible neighbours of any item.
    num_farthest: m; less than N.
    groups: a label an item; an item's nearest neighbours are then taken from other groups alone
      (StEP's rule for pictures of one scene). The farthest are not restricted.
    block: rows and columns of the products.

  Raises:
    ValueError: fewer than k items are allowed as nearest, or fewer than m as farthest.
  """
  count = len(vectors)
  labels = (
    np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
  )
  labels = labels.astype(np.int32)
  allowed = count - np.bincount(labels).max()
  if num_nearest > allowed or num_farthest >= count:
    raise ValueError(
      f'{count} items have at most {allowed} allowed nearest and {count - 1} farthest neighbours; '
      f'{num_nearest} and {num_farthest} were asked for'
    )
  keep_near = min(num_nearest + _SPARE, allowed)
  keep_far = min(num_farthest + _SPARE, count - 1)
  # Distances do not change when all vectors move alike; near the origin float32 keeps more of their
  # digits.
  center = np.mean(vectors, axis=0, dtype=np.float64).astype(np.float32)
  nearest = np.empty((count, num_nearest), np.int32)
  farthest = np.empty((count, num_farthest), np.int32)
  nearest_distance = np.empty((count, num_nearest))
  farthest_distance = np.empty((count, num_farthest))
  for start in tqdm.tqdm(
    range(0, count, block), desc='mining', unit='block', disable=count <= block
  ):
    rows = np.arange(start, min(start + block, count))
    near, far = _candidates(vectors, labels, center, rows, block, keep_near, keep_far)
    for row, near_row, far_row in zip(rows, near, far, strict=True):
      nearest[row], nearest_distance[row] = _rank(vectors, row, near_row, num_nearest, 1)
      farthest[row], farthest_distance[row] = _rank(vectors, row, far_row, num_farthest, -1)
  return Neighbors(nearest, nearest_distance, farthest, farthest_distance)


def _candidates(vectors, labels, center, rows, block, keep_near, keep_far):
  """Indices `[len(rows), keep]` of the nearest and farthest by rounded distances."""
  queries = jnp.asarray(vectors[rows] - center)
  query_labels = jnp.asarray(labels[rows])
  size = len(rows)
  near = (jnp.full((size, keep_near), jnp.inf), jnp.full((size, keep_near), -1, jnp.int32))
  far = (jnp.full((size, keep_far), -jnp.inf), jnp.full((size, keep_far), -1, jnp.int32))
  for start in range(0, len(vectors), block):
    columns = np.arange(start, min(start + block, len(vectors)))
    near, far = _merge_block(
      near, far, queries, query_labels, jnp.asarray(rows),
      jnp.asarray(vectors[columns] - center), jnp.asarray(labels[columns]), jnp.asarray(columns),
    )  # fmt: skip
  return np.asarray(near[1]), np.asarray(far[1])


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _merge_block(near, far, queries, query_labels, query_index, keys, key_labels, key_index):
  """Folds one block of keys into the running best lists `(value, index)`."""
  products = jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST)
  distance = jnp.sum(queries**2, axis=1)[:, None] + jnp.sum(keys**2, axis=1)[None] - 2 * products
  index = jnp.broadcast_to(key_index.astype(jnp.int32), distance.shape)
  other = query_labels[:, None] != key_labels[None]
  itself = query_index[:, None] == key_index[None]

  def merge(best, values, sign):
    values = jnp.concatenate([best[0], values], axis=1)
    indices = jnp.concatenate([best[1], index], axis=1)
    top, place = jax.lax.top_k(sign * values, best[0].shape[1])
    return sign * top, jnp.take_along_axis(indices, place, axis=1)

  near = merge(near, jnp.where(other, distance, jnp.inf), -1)
  return near, merge(far, jnp.where(itself, -jnp.inf, distance), 1)


def _rank(vectors, row, candidates, count, sign):
  """The `count` candidates of smallest (sign 1) or largest (sign -1) exact distance."""
  candidates = np.sort(candidates)
  distance = np.zeros(len(candidates))
  # Differences of float32 numbers are exact enough; their squares are summed in short runs, the
  # runs in float64. Short runs also stay in the cache.
  for start in range(0, vectors.shape[1], _RUN):
    run = slice(start, start + _RUN)
    difference = vectors[candidates, run] - vectors[row, run]
    distance += np.einsum('nd,nd->n', difference, difference)
  order = np.argsort(sign * distance, kind='stable')[:count]
  return candidates[order], distance[order]
