"""Resizing as in PyTorch, with constant matrices along height and width."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def align_corners_matrix(inputs: int, outputs: int) -> np.ndarray:
  """Bilinear interpolation with aligned corner pixels, `[outputs, inputs]`.

  Same as `torch.nn.functional.interpolate` with `align_corners=True`, which `jax.image.resize` does
  not support.
  """
  place = np.arange(outputs) * ((inputs - 1) / max(outputs - 1, 1))
  lower = np.minimum(place.astype(int), inputs - 1)
  upper = np.minimum(lower + 1, inputs - 1)
  weight = place - lower
  matrix = np.zeros((outputs, inputs))
  rows = np.arange(outputs)
  np.add.at(matrix, (rows, lower), 1 - weight)
  np.add.at(matrix, (rows, upper), weight)
  return matrix


@functools.cache
def adaptive_pool_matrix(inputs: int, outputs: int) -> np.ndarray:
  """Means over the bins of `torch.nn.AdaptiveAvgPool2d`, `[outputs, inputs]`.

  Bin `i` has the inputs from `floor(i * inputs / outputs)` to `ceil((i + 1) * inputs / outputs)`,
  exclusive. Bins may overlap, and inputs are repeated if there are more outputs than inputs.
  """
  matrix = np.zeros((outputs, inputs))
  for i in range(outputs):
    start, stop = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
    matrix[i, start:stop] = 1 / (stop - start)
  return matrix


def bilinear(x: jax.Array, size: int) -> jax.Array:
  """Bilinear resizing `[B, H, W, C] -> [B, size, size, C]`; see `align_corners_matrix`."""
  return _resize(x, size, align_corners_matrix)


def adaptive_pool(x: jax.Array, size: int) -> jax.Array:
  """Adaptive pooling `[B, H, W, C] -> [B, size, size, C]`; see `adaptive_pool_matrix`."""
  return _resize(x, size, adaptive_pool_matrix)


def nearest(x: jax.Array, size: int) -> jax.Array:
  """Nearest neighbour `[B, H, W, C] -> [B, size, size, C]`; input `floor(i * inputs / size)`."""
  rows, columns = (np.arange(size) * side // size for side in x.shape[1:3])
  return x[:, rows][:, :, columns]


def _resize(x, size, matrix):
  if x.shape[1:3] == (size, size):
    return x
  # With weights rounded to bfloat16, the default on TPUs, bins would not sum to 1.
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  x = product('oh,bhwc->bowc', jnp.asarray(matrix(x.shape[1], size), x.dtype), x)
  return product('ow,bhwc->bhoc', jnp.asarray(matrix(x.shape[2], size), x.dtype), x)
