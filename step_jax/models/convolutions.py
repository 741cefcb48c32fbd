"""Convolutions with the fastest algorithm for each kind of device.

Results differ only by rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Winograd's F(2x2, 3x3) (Lavin and Gray 2016, sec. 4.1): tiles of 4x4 inputs give 2x2 outputs with
# 16 products instead of 36.
_TILE = 2
_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)
# Minimum product of input and output channels; below it the transforms cost more than they save.
_WINOGRAD_CHANNELS = 2**15
# Number of positions in a strip of the kernel gradient, times channels.
_STRIP = 2**18
# Padding of a convolution of stride 2 that halves an even size with a kernel of 4x4.
_AROUND = ((1, 1), (1, 1))


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding='SAME') -> jax.Array:
  """Plain convolution, `[B, H, W, in], [k, k, in, out] -> [B, H', W', out]`; padding as in lax.

  On CPU, two gradients are computed in another way, which is up to four times as fast: that of the
  kernel in strips if the map is large, and that of the input without products with zeros if the
  stride is 2.
  """
  # Strips rounded to bfloat16 would lose precision in the sum.
  if x.dtype != jnp.float32 or not has_known_shape(x):
    return _conv(x, kernel, stride, padding)
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride,) * 2, padding)
  padding = tuple(map(tuple, padding))
  if stride != 2 and _strip_rows(x, kernel, stride, padding) is None:
    return _conv(x, kernel, stride, padding)
  return _conv_with_rules(x, kernel, stride, padding)


def has_known_shape(x: jax.Array) -> bool:
  """Whether all sizes of `x`, `[...]`, are numbers; those of an export may be symbols."""
  return all(isinstance(size, int) for size in x.shape)


def _conv(x, kernel, stride, padding):
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _strip_rows(x, kernel, stride, padding) -> int | None:
  """Number of output rows per strip; None if the map is small enough for one strip."""
  height, width = (
    (size + sum(pads) - window) // stride + 1
    for size, pads, window in zip(x.shape[1:3], padding, kernel.shape, strict=False)
  )
  rows = max(1, _STRIP // max(kernel.shape[2:]) // (x.shape[0] * width))
  return rows if rows < height else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_with_rules(x, kernel, stride, padding):
  return _conv(x, kernel, stride, padding)


def _conv_backward(stride, padding, saved, gradient):
  x, kernel = saved
  return (
    _input_gradient(x, gradient, kernel, stride, padding),
    _kernel_gradient(x, gradient, kernel, stride, padding),
  )


def _input_gradient(x, gradient, kernel, stride, padding):
  """Gradient of the input `x` from that of the output; on CPU by `_transposed` if possible."""

  def plain(gradient, kernel):
    return jax.linear_transpose(lambda x: _conv(x, kernel, stride, padding), x)(gradient)[0]

  # With a kernel of one tap, odd positions have no taps at all.
  if stride != 2 or min(kernel.shape[:2]) == 1:
    return plain(gradient, kernel)
  phases = functools.partial(_transposed, size=x.shape[1:3], padding=padding)
  return jax.lax.platform_dependent(gradient, kernel, cpu=phases, default=plain)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _transposed(x, kernel, size, padding):
  """`_input_gradient` of a convolution of stride 2, without products with zeros.

  Even and odd positions are multiplied by different taps, so there are four convolutions of
  stride 1.

  Args:
    x: gradient of the output, `[B, h, w, out]`.
    kernel: `[k, k, in, out]`.
    size: height and width of the result.
    padding: that of the convolution of stride 2.

  Returns:
    `[B, *size, in]`.
  """
  # Rows and columns -> even and odd ones -> first tap and padding.
  both = [
    [_phase(*of_axis, odd) for odd in range(2)]
    for of_axis in zip(x.shape[1:3], kernel.shape, size, padding, strict=False)
  ]
  part = lambda row, column: conv(
    x,
    kernel[row[0] :: 2, column[0] :: 2][::-1, ::-1].swapaxes(2, 3),
    padding=(row[1], column[1]),
  )
  rows, columns = both
  y = jnp.stack([jnp.stack([part(i, j) for j in columns], axis=3) for i in rows], axis=2)
  batch, height, _, width, _, features = y.shape
  return y.reshape(batch, 2 * height, 2 * width, features)[:, : size[0], : size[1]]


def _phase(count, window, size, pads, odd):
  """First tap and padding for the even or odd positions of an axis of length `size`."""
  shift, first = divmod(odd + pads[0], 2)
  taps = -(-(window - first) // 2)
  before = taps - 1 - shift
  return first, (before, -(-size // 2) + taps - 1 - count - before)


def _transposed_backward(size, padding, saved, gradient):
  del size
  x, kernel = saved
  return (
    conv(gradient, kernel, 2, padding),
    _kernel_gradient(gradient, x, kernel, 2, padding),
  )


_conv_with_rules.defvjp(lambda *args: (_conv(*args), args[:2]), _conv_backward)
_transposed.defvjp(lambda *args: (_transposed(*args), args[:2]), _transposed_backward)


def _kernel_gradient(x, gradient, kernel, stride, padding):
  """Gradient of `kernel` from that of the output; on CPU in strips, if the map is large."""
  whole = functools.partial(
    _whole_kernel_gradient, stride=stride, padding=padding, size=kernel.shape[:2]
  )
  rows = _strip_rows(x, kernel, stride, padding)
  if rows is None or x.dtype != jnp.float32:
    return whole(x, gradient)
  strips = functools.partial(_summed_over_strips, rows=rows, **whole.keywords)
  return jax.lax.platform_dependent(x, gradient, cpu=strips, default=whole)


def _whole_kernel_gradient(x, gradient, *, stride, padding, size):
  """Kernel gradient of a convolution from the output `gradient`; `size` is the kernel's."""
  shape = (*size, x.shape[-1], gradient.shape[-1])
  like = jax.ShapeDtypeStruct(shape, x.dtype)
  to_kernel = jax.linear_transpose(lambda kernel: _conv(x, kernel, stride, padding), like)
  return to_kernel(gradient)[0]


def _summed_over_strips(x, gradient, *, rows, stride, padding, size):
  """`_whole_kernel_gradient` as a sum over strips of `rows` rows, which fit in the cache.

  XLA's CPU back end computes the whole gradient as one matrix product that sums over all positions,
  at a fifth of the speed of short sums. Only rows are split, because the batch may be sharded over
  devices.
  """
  x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0)))
  window, height = size[0], gradient.shape[1]
  parts = []
  for start in range(0, height, rows):
    stop = min(start + rows, height)
    seen = x[:, start * stride : (stop - 1) * stride + window]
    sides = (0, 0), padding[1]
    strip = gradient[:, start:stop]
    parts.append(_whole_kernel_gradient(seen, strip, stride=stride, padding=sides, size=size))
  return sum(parts[1:], parts[0])


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution of stride 1, 'SAME', `[B, H, W, in], [3, 3, in, out] -> [B, H, W, out]`.

  On CPU, convolutions with many channels use Winograd's method, in about half the time, forward and
  backward. On accelerators the compiler chooses the algorithm.
  """
  # Tile differences rounded to bfloat16 would lose most of their precision.
  if kernel.shape[2] * kernel.shape[3] < _WINOGRAD_CHANNELS or x.dtype != jnp.float32:
    return conv(x, kernel)
  return jax.lax.platform_dependent(x, kernel, cpu=winograd_conv3x3, default=conv)


def upsampled_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 'SAME' convolution of `x` upsampled 2x by nearest neighbour, without the upsampled map.

  The adjoint of `downsampled_conv3x3`, up to a factor. It takes 16 products instead of 36.

  Args:
    x: `[B, H, W, in]`.
    kernel: `[3, 3, in, out]`.

  Returns:
    `[B, 2H, 2W, out]`.
  """
  size = (2 * x.shape[1], 2 * x.shape[2])
  return _transposed(x, 4 * _pooled(kernel[::-1, ::-1].swapaxes(2, 3)), size, _AROUND)


def downsampled_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 'SAME' convolution and 2x2 average pooling, without the map of full size.

  The mean of four neighbouring windows is one window of 4x4 pixels, so this is one convolution of
  stride 2 with sums of taps. It takes 16 products instead of 36.

  Args:
    x: `[B, H, W, in]`, of known shape.
    kernel: `[3, 3, in, out]`.

  Returns:
    `[B, H // 2, W // 2, out]`; an odd last row or column is dropped after the convolution.
  """
  return conv(x, _pooled(kernel), 2, _AROUND)


def _pooled(kernel):
  """Mean of `[3, 3, in, out]` moved by 0 or 1 taps in both directions: `[4, 4, in, out]`."""
  wide = jnp.pad(kernel.astype(jnp.float32), ((1, 1), (1, 1), (0, 0), (0, 0)))
  wide = 0.5 * (wide[1:] + wide[:-1])
  return (0.5 * (wide[:, 1:] + wide[:, :-1])).astype(kernel.dtype)


@jax.custom_vjp
def winograd_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`conv3x3` by Winograd's F(2x2, 3x3): `[B, H, W, in], [3, 3, in, out] -> [B, H, W, out]`."""
  return _winograd_of(x, kernel)


@jax.jit
def _winograd_of(x, kernel):
  return _winograd(x, _transform_kernel(kernel))


def _winograd_forward(x, kernel):
  return winograd_conv3x3(x, kernel), (x, kernel)


@jax.jit
def _winograd_backward(saved, gradient):
  x, kernel = saved
  _, to_kernel = jax.vjp(lambda kernel: _winograd(x, _transform_kernel(kernel)), kernel)
  # The input gradient is a convolution with the flipped kernel. Flipping only swaps the outer two
  # of the four taps in each direction. This is faster than transposed transforms, which add
  # overlapping tiles.
  taps = _transform_kernel(kernel)
  turned = [[taps[i][j] for j in (3, 1, 2, 0)] for i in (3, 1, 2, 0)]
  return _winograd(gradient, turned, axis=1), *to_kernel(gradient)


winograd_conv3x3.defvjp(_winograd_forward, _winograd_backward)


def _transform_kernel(kernel):
  """`[3, 3, in, out]` to 4x4 nested lists of `[in, out]`."""
  taps = [_combine(_KERNEL, [kernel[i, j] for j in range(3)]) for i in range(3)]
  columns = (_combine(_KERNEL, [taps[i][j] for i in range(3)]) for j in range(4))
  return list(zip(*columns, strict=True))


def _winograd(x, taps, axis=0):
  """Convolution of `x` with transformed taps, contracting their `axis` with the channels of `x`."""
  batch, height, width, channels = x.shape
  rows, columns = -(-height // _TILE), -(-width // _TILE)
  below, right = 1 + rows * _TILE - height, 1 + columns * _TILE - width
  x = jnp.pad(x, ((0, 0), (1, below), (1, right), (0, 0)))
  lines = _combine(_INPUT, [x[:, i : i + _TILE * rows : _TILE] for i in range(4)])
  tiles = [
    _combine(_INPUT, [line[:, :, j : j + _TILE * columns : _TILE] for j in range(4)])
    for line in lines
  ]
  # Separate matrix products: XLA's CPU back end runs these faster than one batched product.
  products = [
    [
      jax.lax.dot_general(
        tiles[i][j].reshape(-1, channels), taps[i][j], (((1,), (axis,)), ((), ()))
      ).reshape(batch, rows, columns, -1)
      for j in range(4)
    ]
    for i in range(4)
  ]
  lines = [_combine(_OUTPUT, [products[i][j] for i in range(4)]) for j in range(4)]
  y = [_combine(_OUTPUT, [lines[j][i] for j in range(4)]) for i in range(2)]
  y = jnp.stack([jnp.stack(line, axis=3) for line in y], axis=2)
  return y.reshape(batch, rows * _TILE, columns * _TILE, -1)[:, :height, :width]


def _combine(matrix: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
  """`matrix @ parts` for a sparse constant matrix; entries of 1 and -1 need only additions."""
  sums = []
  for row in matrix:
    terms = [
      part if factor == 1 else -part if factor == -1 else factor * part
      for factor, part in zip(row, parts, strict=True)
      if factor
    ]
    sums.append(sum(terms[1:], terms[0]))
  return sums
