"""Layers with PyTorch's default initialisation and padding, NHWC."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.models import convolutions

# Kaiming uniform with a = sqrt(5): U(-b, b) with b = 1 / sqrt(fan_in).
_kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _bias_init(fan_in: int):
  bound = 1 / math.sqrt(fan_in)
  return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Conv(nn.Module):
  """Convolution with `size // 2` zeros on each side, `[B, H, W, in] -> [B, H', W', features]`.

  With stride 2, XLA's 'SAME' would pad even sizes only on one side.

  Attributes:
    features: output channels.
    size: side of the kernel.
    stride: stride in both directions.
    bias: whether to add a bias.
  """

  features: int
  size: int
  stride: int = 1
  bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', _kernel_init, shape)
    margin = (self.size // 2,) * 2
    y = convolutions.conv(x, kernel, self.stride, (margin, margin))
    if self.bias:
      y = y + self.param('bias', _bias_init(math.prod(shape[:-1])), (self.features,))
    return y


class Dense(nn.Module):
  """Fully connected layer, `[..., in] -> [..., features]`."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', _kernel_init, (x.shape[-1], self.features))
    return x @ kernel + self.param('bias', _bias_init(x.shape[-1]), (self.features,))


class PReLU(nn.Module):
  """Leaky ReLU with a learned slope per channel, `[..., C]`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    slope = self.param('slope', nn.initializers.constant(0.25), x.shape[-1:])
    return jnp.where(x >= 0, x, slope * x)
