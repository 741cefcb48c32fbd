"""The nearest of many samples for each code, for implicit maximum likelihood estimation (IMLE)."""

import jax
import jax.numpy as jnp

# Maximum number of codes, and number of samples, per matrix product: small enough for the cache of
# a CPU, and large enough for an accelerator.
_TILES = {'cpu': (4096, 512)}
_TILE = (16384, 4096)
# Number of codes whose best blocks are gathered at a time.
_LOOKED_UP = 256
# The number of codes per product is rounded up to a multiple of this, the lanes of a TPU.
_LANES = 128


def nearest_samples(codes: jax.Array, samples: jax.Array) -> jax.Array:
  """Index of the nearest sample of each code: `[N, Z], [M, Z] -> int32 [N]`; ties: the first one.

  Uses blocked products with a running minimum, so memory does not grow with `N * M`. The minimum is
  tracked per block of samples, and its index is searched only in the best block, because index
  searches are slower. Distances are computed in float32 from centered vectors. If distances differ
  by less than rounding errors, any of these samples may be returned.
  """
  tile, block = _TILES.get(jax.default_backend(), _TILE)
  count, size = len(codes), len(samples)
  # Tiles of equal size, so that the last one is not mostly padding.
  in_tile = -(-count // -(-count // tile))
  tile = -(-in_tile // _LANES) * _LANES
  block = min(block, size)
  # A translation does not change distances, and rounding errors are smaller near the origin.
  center = jnp.mean(codes, axis=0)
  codes, samples = codes - center, samples - center
  # |sample|^2 - 2 <code, sample> as one product; |code|^2 does not matter for the minimum.
  # The last block is padded with samples that are farther away than all others.
  fill = ((0, -size % block), (0, 0))
  norms = jnp.sum(samples**2, axis=1, keepdims=True)
  norms = jnp.pad(norms, fill, constant_values=jnp.finfo(norms.dtype).max)
  keys = jnp.concatenate([-2 * jnp.pad(samples, fill), norms], axis=1)
  keys = keys.reshape(-1, block, keys.shape[1]).swapaxes(1, 2)
  queries = jnp.concatenate([codes, jnp.ones((count, 1), codes.dtype)], axis=1)
  queries = jnp.pad(queries, ((0, -count % tile), (0, 0))).reshape(-1, tile, keys.shape[1])

  def of_tile(query):
    def fold(best, entry):
      number, key = entry
      least = jnp.min(jnp.matmul(query, key, precision=jax.lax.Precision.HIGHEST), axis=1)
      better = least < best[0]
      return (jnp.where(better, least, best[0]), jnp.where(better, number, best[1])), None

    start = (jnp.full(tile, jnp.inf), jnp.zeros(tile, jnp.int32))
    (_, winner), _ = jax.lax.scan(fold, start, (jnp.arange(len(keys), dtype=jnp.int32), keys))
    within = jax.lax.map(lambda pair: _least(*pair), (query, winner), batch_size=_LOOKED_UP)
    return winner * block + within

  def _least(query, winner):
    """Position of the least cost in the best block."""
    # `argmin` takes four times as long on CPUs. Without a barrier, costs might be computed twice,
    # and rounded differently.
    costs = jax.lax.optimization_barrier(jnp.sum(keys[winner] * query[:, None], axis=0))
    positions = jnp.arange(block, dtype=jnp.int32)
    # The last position if a cost is not a number, which equals nothing.
    return jnp.min(jnp.where(costs == jnp.min(costs), positions, block - 1))

  return jax.lax.map(of_tile, queries).reshape(-1)[:count]
