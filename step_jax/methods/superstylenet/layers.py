"""Layers of both networks: convolutions, label maps, initialisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.models import convolutions
from step_jax.models.spectral import SpectralNorm

LEAKY_SLOPE = 0.2
# Xavier-normal with a gain of 0.02 (Glorot and Bengio 2010): std = 0.02 sqrt(2 / (in + out)).
xavier = nn.initializers.variance_scaling(0.02**2, 'fan_avg', 'normal')
# U(-1 / sqrt(in), 1 / sqrt(in)): PyTorch's default, used for spectrally normalised kernels.
uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def side_by_side(init, parts: int):
  """Initialises a kernel as several independent kernels side by side."""

  def initialise(key, shape, dtype=jnp.float32):
    one = (*shape[:-1], shape[-1] // parts)
    keys = jax.random.split(key, parts)
    return jnp.concatenate([init(part, one, dtype) for part in keys], axis=-1)

  return initialise


def leaky_relu(x: jax.Array) -> jax.Array:
  """Leaky ReLU of slope 0.2, `[...]` to the same shape."""
  return nn.leaky_relu(x, LEAKY_SLOPE)


class Conv(nn.Module):
  """Convolution with the zero padding of PyTorch, `[B, H, W, in] -> [B, H', W', out]`.

  Attributes:
    features: output channels.
    size: side of the square kernel.
    stride: stride of the window.
    bias: whether to add a bias.
    spectral: whether to divide the kernel by its largest singular value.
    parts: number of kernels side by side that are initialised independently.
    dtype: compute type; parameters stay float32.
  """

  features: int
  size: int = 3
  stride: int = 1
  bias: bool = True
  spectral: bool = False
  parts: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, scale: jax.Array | None = None
  ) -> jax.Array:
    """Applies the convolution; `scale`, `[out]`, multiplies the kernel and bias."""
    init = uniform if self.spectral else side_by_side(xavier, self.parts)
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', init, shape)
    if self.spectral:
      kernel = SpectralNorm(name='norm')(kernel, train)
    scale = 1.0 if scale is None else scale
    kernel = kernel * scale
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if (self.size, self.stride) == (3, 1):
      y = convolutions.conv3x3(x, kernel)
    else:
      y = convolutions.conv(x, kernel, self.stride, ((self.size // 2,) * 2,) * 2)
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,)) * scale
      y += bias.astype(self.dtype)
    return y


def nearest_labels(labels: jax.Array, height: int, width: int) -> jax.Array:
  """Resizes a label map by nearest neighbour: `[B, H, W] -> [B, height, width]`.

  Pixel `i` gets the value at `floor(i * H / height)`, as in PyTorch.
  """
  rows = jnp.arange(height) * labels.shape[1] // height
  columns = jnp.arange(width) * labels.shape[2] // width
  return labels[:, rows[:, None], columns]


def one_hot(labels: jax.Array, num_labels: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
  """One-hot labels, `[B, H, W] -> [B, H, W, L]`; zeros for labels outside 0 ... L - 1."""
  return jax.nn.one_hot(labels, num_labels, dtype=dtype)


def label_patches(labels: jax.Array, num_labels: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
  """One-hot labels of the 3x3 neighbourhood of every pixel: `[B, H, W] -> [B, H * W, 9, L]`.

  Positions outside the map have no label.
  """
  batch, height, width = labels.shape
  wide = jnp.pad(labels, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
  taps = [wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
  near = jnp.stack(taps, axis=-1).reshape(batch, height * width, 9)
  return one_hot(near, num_labels, dtype)
