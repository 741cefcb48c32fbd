"""Up- and downsampling with finite impulse response filters (Karras et al. 2020, appendix B).

Filters are sums of shifted slices, because depthwise convolutions and their gradients are slow on
XLA's CPU back end, while sums are fused on every back end.
"""

import jax
import jax.numpy as jnp
import numpy as np

# The low-pass filter of StyleGAN2 along each axis; its two-dimensional form sums to 1.
TAPS = np.array([1, 3, 3, 1]) / 8


def upfirdn2d(
  x: jax.Array, kernel: np.ndarray, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> jax.Array:
  """Inserts zeros, pads, convolves each channel with `kernel`, and keeps every `down`-th pixel.

  Args:
    x: `[B, H, W, C]`.
    kernel: constant `[kh, kw]`, flipped as in a true convolution.
    up: `up - 1` zeros are inserted after each pixel, including the last one.
    down: stride of the output, starting at pixel 0.
    pad: zeros before and after, on both axes; negative values crop.

  Returns:
    `[B, H', W', C]` with `H' = (H * up + sum(pad) - kh) // down + 1`.
  """
  zero = jnp.zeros([], x.dtype)
  # The zero after the last pixel is part of the padding.
  spread = (pad[0], pad[1] + up - 1, up - 1)
  x = jax.lax.pad(x, zero, ((0, 0, 0), spread, spread, (0, 0, 0)))
  height, width = kernel.shape
  rows, columns = (x.shape[1] - height) // down + 1, (x.shape[2] - width) // down + 1
  flipped = kernel[::-1, ::-1]
  parts = [
    float(flipped[i, j]) * _strided(_strided(x, i, rows, down, 1), j, columns, down, 2)
    for i in range(height)
    for j in range(width)
  ]
  return sum(parts[1:], parts[0])


def blur(x: jax.Array, pad: int, gain: float = 1.0, down: int = 1) -> jax.Array:
  """`upfirdn2d` with the filter [1, 3, 3, 1] and equal padding, one axis after the other.

  Args:
    x: `[B, H, W, C]`.
    pad: zeros on each side.
    gain: sum of the filter.
    down: stride of the output.

  Returns:
    `[B, H', W', C]` with `H' = (H + 2 * pad - 4) // down + 1`.
  """
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  for axis in (1, 2):
    count = (x.shape[axis] - len(TAPS)) // down + 1
    outer, inner = (
      _strided(x, i, count, down, axis) + _strided(x, 3 - i, count, down, axis) for i in (0, 1)
    )
    # The filter is symmetric.
    x = float(TAPS[0] * gain**0.5) * outer + float(TAPS[1] * gain**0.5) * inner
  return x


def upsample(x: jax.Array) -> jax.Array:
  """2x upsampling with the filter [1, 3, 3, 1], `[B, H, W, C] -> [B, 2H, 2W, C]`.

  Equal to `upfirdn2d` with `up=2`, `pad=(2, 1)` and gain 4, but does not insert zeros: an output
  pixel is three quarters of the nearest input pixel plus one quarter of the second nearest one.
  """
  for axis in (1, 2):
    count = x.shape[axis]
    margin = [(0, 0)] * 4
    margin[axis] = (1, 1)
    padded = jnp.pad(x, margin)
    before, after = (_strided(padded, i, count, 1, axis) for i in (0, 2))
    pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
    x = pair.reshape(*x.shape[:axis], 2 * count, *x.shape[axis + 1 :])
  return x


def _strided(x: jax.Array, start: int, count: int, stride: int, axis: int) -> jax.Array:
  return jax.lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)
