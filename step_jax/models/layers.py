"""Layers of StEP's four networks; NHWC, with statistics in float32.

Every convolution uses an *equalised learning rate* (Karras et al. 2018): its kernel is drawn from
N(0, 1) and multiplied by a He constant in the forward pass, `sqrt(2 / ((1 + a^2) * fan_in))`. The
slope `a` of that constant is 1.0 inside `BasicBlock` and `ResBlock` and 0.2 elsewhere, whatever
activation follows. This is as in the original, whose trained weights depend on it.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.models import convolutions, spectral

LEAKY_SLOPE = 0.2
NORM_EPSILON = 1e-5
PIXEL_NORM_EPSILON = 1e-8


def he_scale(kernel_shape: tuple[int, ...], slope: float = LEAKY_SLOPE) -> float:
  """He constant of a kernel `[..., fan, out]`: `sqrt(2 / ((1 + slope^2) * fan_in))`.

  He et al. (2015), eq. 15.
  """
  fan_in = 1
  for size in kernel_shape[:-1]:
    fan_in *= size
  return (2.0 / ((1.0 + slope**2) * fan_in)) ** 0.5


def leaky_relu(x: jax.Array) -> jax.Array:
  """Leaky ReLU with negative slope 0.2; `[...]` to the same shape."""
  return nn.leaky_relu(x, LEAKY_SLOPE)


def pixel_norm(x: jax.Array) -> jax.Array:
  """Divides each pixel's feature vector by its root mean square; `[..., C]`.

  Karras et al. (2018), sec. 4.2.
  """
  mean_square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(mean_square + PIXEL_NORM_EPSILON).astype(x.dtype)


def downscale(x: jax.Array) -> jax.Array:
  """2x2 average pooling, `[B, H, W, C] -> [B, H//2, W//2, C]`; drops an odd last row or column.

  Implemented as a reshape and a mean, because the gradient of a windowed reduction is several times
  slower on CPU.
  """
  batch, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))


def upscale(x: jax.Array) -> jax.Array:
  """2x nearest-neighbour upsampling, `[B, H, W, C] -> [B, 2H, 2W, C]`."""
  batch, height, width, channels = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
  return x.reshape(batch, 2 * height, 2 * width, channels)


def global_average(x: jax.Array) -> jax.Array:
  """Mean over height and width, `[B, H, W, C] -> [B, C]`."""
  return jnp.mean(x, axis=(1, 2))


def concat_code(x: jax.Array, z: jax.Array) -> jax.Array:
  """Appends a style code to every pixel: `[B, H, W, C], [B, Z] -> [B, H, W, C + Z]`."""
  tiled = jnp.broadcast_to(z[:, None, None, :].astype(x.dtype), (*x.shape[:3], z.shape[-1]))
  return jnp.concatenate([x, tiled], axis=-1)


def minibatch_stddev(x: jax.Array, groups: int = 1) -> jax.Array:
  """Standard deviation over the images of a mini-batch, averaged over H, W and C.

  The variance is biased and 1e-8 is added to it, so that a mini-batch of one gives 1e-4.

  Args:
    x: `[B, H, W, C]`, `groups` interleaved mini-batches: image `i` belongs to mini-batch
      `i % groups`.
    groups: number of mini-batches.

  Returns:
    float32 `[groups]`.
  """
  x = x.astype(jnp.float32).reshape(-1, groups, *x.shape[1:])
  return jnp.mean(jnp.sqrt(jnp.var(x, axis=0) + PIXEL_NORM_EPSILON), axis=(1, 2, 3))


def concat_minibatch_stddev(x: jax.Array, groups: int = 1) -> jax.Array:
  """Appends each image's `minibatch_stddev` as a last channel: `[B, H, W, C + 1]`."""
  statistic = jnp.tile(minibatch_stddev(x, groups).astype(x.dtype), x.shape[0] // groups)
  channel = jnp.broadcast_to(statistic[:, None, None, None], (*x.shape[:3], 1))
  return jnp.concatenate([x, channel], axis=-1)


class Conv(nn.Module):
  """Convolution with an equalised learning rate, `[B, H, W, in] -> [B, H', W', out]`.

  Padded as TensorFlow's 'SAME': an odd pixel of padding is added at the end.

  Attributes:
    features: output channels.
    kernel_size: side of the square kernel.
    stride: stride of the window.
    slope: the slope `a` in the He constant.
    upsample: convolve the input upsampled 2x by nearest neighbour (3x3, stride 1).
    downsample: halve the output by 2x2 average pooling (3x3, stride 1).
    spectral_norm: divide the kernel by its largest singular value.
    dtype: compute type; parameters stay float32.
  """

  features: int
  kernel_size: int
  stride: int = 1
  slope: float = LEAKY_SLOPE
  upsample: bool = False
  downsample: bool = False
  spectral_norm: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.normal(1.0), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    if self.spectral_norm:
      kernel = spectral.spectral_norm(kernel)
    else:
      kernel = kernel * he_scale(shape, self.slope)
    return self._convolve(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)

  def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if self.upsample:
      return convolutions.upsampled_conv3x3(x, kernel)
    if self.downsample and convolutions.has_known_shape(x):
      return convolutions.downsampled_conv3x3(x, kernel)
    if self.downsample:
      return downscale(convolutions.conv3x3(x, kernel))
    if (self.kernel_size, self.stride) == (3, 1):
      return convolutions.conv3x3(x, kernel)
    return convolutions.conv(x, kernel, self.stride)


class Dense(nn.Module):
  """Fully connected layer `[..., in] -> [..., features]`; its kernel is drawn from N(0, 0.02^2)."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', nn.initializers.normal(0.02), (x.shape[-1], self.features))
    return x @ kernel + self.param('bias', nn.initializers.zeros, (self.features,))


class InstanceNorm(nn.Module):
  """Normalises each image and channel over H and W with biased variance, then scales and shifts.

  `[B, H, W, C]`.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    gamma = self.param('gamma', nn.initializers.ones, (x.shape[-1],))
    beta = self.param('beta', nn.initializers.zeros, (x.shape[-1],))
    wide = x.astype(jnp.float32)
    mean, variance = self.moments(wide)
    scale = jax.lax.rsqrt(variance + NORM_EPSILON) * gamma
    # One multiplication and one addition per pixel, rounded in the same order as the original.
    return (wide * scale + (beta - mean * scale)).astype(x.dtype)

  def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over H and W, `[B, 1, 1, C]`; an interceptor may replace them."""
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axis=(1, 2), keepdims=True)


def block(module: type[nn.Module], remat: bool) -> type[nn.Module]:
  """The class of a block `[B, …] -> [B, …]`, optionally with rematerialisation.

  With `remat`, only the input is kept for the backward pass, and activations are recomputed. This
  needs less memory and one more forward pass.
  """
  return nn.remat(module) if remat else module


class BasicBlock(nn.Module):
  """Downsampling residual block of the style encoder, `[B, H, W, in] -> [B, H//2, W//2, features]`.

  `avgpool(conv3(lrelu(conv3(lrelu(x))))) + conv1(avgpool(x))`, no norm; kernels are scaled with
  slope 1.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = functools.partial(Conv, self.features, slope=1.0, dtype=self.dtype)
    y = conv(3, name='conv0')(leaky_relu(x))
    y = conv(3, downsample=True, name='conv1')(leaky_relu(y))
    return y + conv(1, name='shortcut')(downscale(x))


class ResBlock(nn.Module):
  """Residual block `x + norm(conv3(relu(norm(conv3(x)))))`, `[B, H, W, C]`.

  Kernels are scaled with slope 1.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    y = Conv(channels, 3, slope=1.0, dtype=self.dtype, name='conv0')(x)
    y = nn.relu(InstanceNorm(name='norm0')(y))
    y = Conv(channels, 3, slope=1.0, dtype=self.dtype, name='conv1')(y)
    return x + InstanceNorm(name='norm1')(y)
