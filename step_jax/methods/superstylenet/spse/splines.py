"""Cubic interpolation as matrices: from the mean colours of superpixels to a code of 512 numbers.

A code is linear in the mean colours. Each colour channel, with one value per superpixel, is
resampled to 128 values. The concatenated red, green and blue channels are resampled to 512. As in
the original, the second resampling interpolates across channel boundaries, where values oscillate
and may leave [0, 1].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

SUPERPIXELS = 128
CODE_SIZE = 512
# Minimum number of points of a cubic.
_FEWEST = 4


@functools.cache
def spline_matrix(knots: int, points: int) -> np.ndarray:
  """Matrix that evaluates the cubic spline of evenly spaced values at evenly spaced points.

  A not-a-knot spline: its third derivative is continuous at the second and the second-to-last knot
  (de Boor 1978, chapter IV). Both grids cover the same interval, including its ends.

  Args:
    knots: number of values, at least 4.
    points: number of evaluation points.

  Returns:
    float64 `[points, knots]`, read-only.
  """
  # Solves for the second derivatives at the knots, which have distance 1.
  second = np.zeros((knots, knots))
  slopes = np.zeros((knots, knots))
  for i in range(1, knots - 1):
    second[i, i - 1 : i + 2] = (1, 4, 1)
    slopes[i, i - 1 : i + 2] = (6, -12, 6)
  second[0, :3] = second[-1, -3:] = (1, -2, 1)
  curvature = np.linalg.solve(second, slopes)

  position = np.arange(points) * (knots - 1) / (points - 1)
  left = np.minimum(position.astype(int), knots - 2)
  right = (position - left)[:, None]
  values = np.eye(knots)
  matrix = (1 - right) * values[left] + right * values[left + 1]
  for weight, index in ((1 - right, left), (right, left + 1)):
    matrix += (weight**3 - weight) / 6 * curvature[index]
  matrix.setflags(write=False)
  return matrix


@functools.cache
def spline_table() -> np.ndarray:
  """All matrices that resample one channel: float32 `[129, 128, 128]`, 8 MB, read-only.

  Matrix `n` resamples `n` values, in the first columns, to 128. It is zero for `n < 4`, because a
  cubic needs four points; two superpixels are a special case (`encode_means`).
  """
  table = np.zeros((SUPERPIXELS + 1, SUPERPIXELS, SUPERPIXELS), np.float32)
  for n in range(_FEWEST, SUPERPIXELS):
    table[n, :, :n] = spline_matrix(n, SUPERPIXELS)
  table[SUPERPIXELS] = np.eye(SUPERPIXELS)
  table.setflags(write=False)
  return table


def has_code(count: jax.Array | int) -> jax.Array | bool:
  """Whether a region with `count` superpixels has a code: true for two and for four or more."""
  return (count == 2) | (count >= _FEWEST)


def encode_means(means: jax.Array, alive: jax.Array, table: jax.Array) -> jax.Array:
  """Style codes of regions from the mean colours of their superpixels.

  Args:
    means: float32 `[R, 128, 3]`, RGB in [0, 1], in the order of the seeds.
    alive: bool `[R, 128]`, superpixels with pixels.
    table: `spline_table()`; an argument, so that it is not a constant of compiled programs.

  Returns:
    float32 `[R, 512]`; meaningless if `has_code` is false for the number of superpixels.
  """
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  count = jnp.sum(alive, axis=1, dtype=jnp.int32)
  rank = jnp.cumsum(alive, axis=1) - 1
  # Superpixels without pixels are removed, and later ones move up.
  moved = (rank[:, None, :] == jnp.arange(SUPERPIXELS)[:, None]) & alive[:, None, :]
  packed = product('rpk,rkc->rpc', moved.astype(jnp.float32), jnp.where(alive[..., None], means, 0))
  channels = product('rpk,rkc->rcp', table[count], packed)
  joined = spline_matrix(3 * SUPERPIXELS, CODE_SIZE).astype(np.float32)
  codes = product('op,rp->ro', joined, channels.reshape(len(means), 3 * SUPERPIXELS))
  # For two superpixels, the six values are resampled directly to 512.
  six = jnp.moveaxis(packed[:, :2], 1, 2).reshape(len(means), 6)
  pairs = product('op,rp->ro', spline_matrix(6, CODE_SIZE).astype(np.float32), six)
  return jnp.where((count == 2)[:, None], pairs, codes)
