"""The nearest of many samples for every code, as implicit maximum likelihood pairs them."""

import jax
import jax.numpy as jnp

# Codes and samples that are compared at a time: products of that many stay in a CPU's cache, and
# keep an accelerator busy.
_TILES = {'cpu': (1024, 512)}
_TILE = (16384, 4096)
# Codes whose winning blocks are gathered at a time.
_LOOKED_UP = 256


def nearest_samples(codes: jax.Array, samples: jax.Array) -> jax.Array:
  """Index of the nearest sample of every code: `[N, Z], [M, Z] -> int32 [N]`; of equals the first.

  Blocked products with a running minimum: memory does not grow with `N * M`. The minimum is kept by
  block of samples, as looking for places is the slower part; the place is looked for in the winning
  block alone. Distances are of float32, from vectors around the mean code: of samples whose
  distances differ by less than rounding, any may be found.
  """
  tile, block = _TILES.get(jax.default_backend(), _TILE)
  count, size = len(codes), len(samples)
  tile, block = min(tile, count), min(block, size)
  # Distances do not change when all vectors move alike; near the origin rounding is smaller.
  center = jnp.mean(codes, axis=0)
  codes, samples = codes - center, samples - center
  # |sample|^2 - 2 <code, sample> as one product; |code|^2 does not matter for the minimum.
  # The last block is filled up with samples farther away than any.
  fill = ((0, -size % block), (0, 0))
  norms = jnp.sum(samples**2, axis=1, keepdims=True)
  norms = jnp.pad(norms, fill, constant_values=jnp.finfo(norms.dtype).max)
  keys = jnp.concatenate([-2 * jnp.pad(samples, fill), norms], axis=1)
  keys = keys.reshape(-1, block, keys.shape[1])
  queries = jnp.concatenate([codes, jnp.ones((count, 1), codes.dtype)], axis=1)
  queries = jnp.pad(queries, ((0, -count % tile), (0, 0))).reshape(-1, tile, keys.shape[2])

  def of_tile(query):
    def fold(best, entry):
      number, key = entry
      least = jnp.min(jnp.matmul(query, key.T, precision=jax.lax.Precision.HIGHEST), axis=1)
      better = least < best[0]
      return (jnp.where(better, least, best[0]), jnp.where(better, number, best[1])), None

    start = (jnp.full(tile, jnp.inf), jnp.zeros(tile, jnp.int32))
    (_, winner), _ = jax.lax.scan(fold, start, (jnp.arange(len(keys), dtype=jnp.int32), keys))
    within = jax.lax.map(lambda pair: _least(*pair), (query, winner), batch_size=_LOOKED_UP)
    return winner * block + within

  def _least(query, winner):
    costs = jnp.matmul(keys[winner], query, precision=jax.lax.Precision.HIGHEST)
    return jnp.argmin(costs).astype(jnp.int32)

  return jax.lax.map(of_tile, queries).reshape(-1)[:count]
