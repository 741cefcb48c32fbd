"""Convolutions as each kind of device computes them fastest.

The numbers differ by rounding alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Winograd's F(2x2, 3x3) (Lavin and Gray 2016, sec. 4.1): tiles of 4x4 inputs give 2x2 outputs from
# 16 products in place of 36.
_TILE = 2
_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)
# With fewer channels the transforms cost more than the products save.
_WINOGRAD_CHANNELS = 192


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding='SAME') -> jax.Array:
  """Plain convolution, `[B, H, W, in], [k, k, in, out] -> [B, H', W', out]`; padding as in lax."""
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution of stride 1, 'SAME', `[B, H, W, in], [3, 3, in, out] -> [B, H, W, out]`.

  On CPU wide ones are computed by Winograd's method: about half the time, forward and backward.
  Accelerators choose for themselves.
  """
  # Differences of tiles that are rounded to bfloat16 would lose most of their digits.
  if min(kernel.shape[2:]) < _WINOGRAD_CHANNELS or x.dtype != jnp.float32:
    return conv(x, kernel)
  return jax.lax.platform_dependent(x, kernel, cpu=winograd_conv3x3, default=conv)


def upsampled_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 'SAME' convolution of `x` doubled by nearest neighbour, without making the doubled map.

  A pixel of the doubled map sees two by two pixels of `x`, and which of the kernel's taps meet in
  one of these depends on whether its row and column are even or odd: four 2x2 convolutions with
  sums of taps, 16 products for what takes 36 on the doubled map.

  Args:
    x: `[B, H, W, in]`.
    kernel: `[3, 3, in, out]`.

  Returns:
    `[B, 2H, 2W, out]`.
  """

  def halves(taps):
    """Taps that meet in each of the two pixels seen, for an even and for an odd place."""
    first, middle, last = taps
    return (first, middle + last), (first + middle, last)

  rows = [jnp.stack(half) for half in halves(kernel)]
  phases = [[jnp.stack(half, axis=1) for half in halves(jnp.moveaxis(row, 1, 0))] for row in rows]
  # An even place sees its own pixel and the one before, an odd place its own and the one after.
  pad = ((1, 0), (0, 1))
  y = jnp.stack(
    [
      jnp.stack([conv(x, phases[i][j], padding=(pad[i], pad[j])) for j in range(2)], axis=3)
      for i in range(2)
    ],
    axis=2,
  )
  batch, height, _, width, _, features = y.shape
  return y.reshape(batch, 2 * height, 2 * width, features)


def winograd_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`conv3x3` by Winograd's F(2x2, 3x3): `[B, H, W, in], [3, 3, in, out] -> [B, H, W, out]`."""
  batch, height, width, channels = x.shape
  rows, columns = -(-height // _TILE), -(-width // _TILE)
  below, right = 1 + rows * _TILE - height, 1 + columns * _TILE - width
  x = jnp.pad(x, ((0, 0), (1, below), (1, right), (0, 0)))
  lines = _combine(_INPUT, [x[:, i : i + _TILE * rows : _TILE] for i in range(4)])
  tiles = [
    _combine(_INPUT, [line[:, :, j : j + _TILE * columns : _TILE] for j in range(4)])
    for line in lines
  ]
  taps = [_combine(_KERNEL, [kernel[i, j] for j in range(3)]) for i in range(3)]
  taps = list(
    zip(*(_combine(_KERNEL, [taps[i][j] for i in range(3)]) for j in range(4)), strict=True)
  )
  # One plain matrix product each: XLA's CPU back end runs these faster than one batched product.
  products = [
    [
      jnp.dot(tiles[i][j].reshape(-1, channels), taps[i][j]).reshape(batch, rows, columns, -1)
      for j in range(4)
    ]
    for i in range(4)
  ]
  lines = [_combine(_OUTPUT, [products[i][j] for i in range(4)]) for j in range(4)]
  y = [_combine(_OUTPUT, [lines[j][i] for j in range(4)]) for i in range(2)]
  y = jnp.stack([jnp.stack(line, axis=3) for line in y], axis=2)
  return y.reshape(batch, rows * _TILE, columns * _TILE, -1)[:, :height, :width]


def _combine(matrix: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
  """`matrix @ parts` for a constant matrix of few entries.

  Only additions where they are 1 or -1.
  """
  sums = []
  for row in matrix:
    terms = [
      part if factor == 1 else -part if factor == -1 else factor * part
      for factor, part in zip(row, parts, strict=True)
      if factor
    ]
    sums.append(sum(terms[1:], terms[0]))
  return sums
