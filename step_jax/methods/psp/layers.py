"""Layers of StyleGAN2, NHWC.

Parameters have unit variance and are multiplied by `1 / sqrt(fan_in)` in the forward pass. This is
an equalised learning rate (Karras et al. 2018) without the gain of He's constant. Kernels are
`[k, k, in, out]` and `[in, out]`, in PyTorch's orientation.
"""

from collections.abc import Callable
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.psp import fir

EPSILON = 1e-8

Convolution = Callable[[jax.Array, jax.Array], jax.Array]


def fused_leaky_relu(x: jax.Array) -> jax.Array:
  """Leaky ReLU with slope 0.2, times sqrt(2) to keep the variance; any shape."""
  return nn.leaky_relu(x, 0.2) * math.sqrt(2)


def same(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolution of stride 1, `[B, H, W, in], [k, k, in, out] -> [B, H, W, out]`."""
  return _same(*_promoted(x, kernel))


def downsampling(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Blur and convolution of stride 2, `[B, H, W, in], [k, k, in, out] -> [B, H/2, W/2, out]`."""
  if kernel.shape[0] == 1:  # Only every second pixel of the blurred map is needed.
    return same(fir.blur(x, pad=1, down=2), kernel)
  return _strided(*_promoted(fir.blur(x, pad=2), kernel))


def upsampling(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Transposed convolution of stride 2 and blur, `[B, H, W, in], [3, 3, in, out] -> [B, 2H, …]`.

  The convolution equals `torch.nn.functional.conv_transpose2d` without padding: input pixel `i`
  adds `x[i] * kernel[a]` to output pixel `2 i + a`.
  """
  return fir.blur(_transposed(*_promoted(x, kernel)), pad=1, gain=4.0)


# Gradients of the three convolutions are convolutions of the same kinds, in the layout for which
# XLA's CPU back end has a fast kernel. Without these rules, it takes 10 to 60 times as long for
# gradients inside a `lax.cond` (R1, path lengths), and for kernel gradients of `_transposed`.


@jax.custom_vjp
def _same(x, kernel):
  return _convolve(x, kernel, pad=kernel.shape[0] // 2)


@jax.custom_vjp
def _strided(x, kernel):
  """Convolution of stride 2 without padding, `[B, 2h + 1, 2w + 1, in] -> [B, h, w, out]`."""
  return _convolve(x, kernel, stride=2)


@jax.custom_vjp
def _transposed(x, kernel):
  """Transposed convolution of stride 2, `[B, h, w, in] -> [B, 2h + 1, 2w + 1, out]`."""
  return _convolve(x, kernel[::-1, ::-1], pad=2, lhs_dilation=(2, 2))


def _same_backward(saved, gradient):
  x, kernel = saved
  pad = kernel.shape[0] // 2
  to_x = _same(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
  return to_x, _kernel_gradient(x, gradient, pad=pad)


def _strided_backward(saved, gradient):
  x, kernel = saved
  return _transposed(gradient, kernel.swapaxes(2, 3)), _kernel_gradient(x, gradient, stride=2)


def _transposed_backward(saved, gradient):
  x, kernel = saved
  to_kernel = _kernel_gradient(gradient, x, stride=2)
  return _strided(gradient, kernel.swapaxes(2, 3)), to_kernel.swapaxes(2, 3)


_same.defvjp(lambda *args: (_same(*args), args), _same_backward)
_strided.defvjp(lambda *args: (_strided(*args), args), _strided_backward)
_transposed.defvjp(lambda *args: (_transposed(*args), args), _transposed_backward)


def _kernel_gradient(x, gradient, stride=1, pad=0):
  """Kernel gradient of a convolution, `[B, H, W, in], [B, h, w, out] -> [k, k, in, out]`.

  It is a convolution over the batch, of `x` and a kernel that is as large as the map.
  """
  images, kernel = x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
  barrier = lambda *args: jax.lax.optimization_barrier(args)
  # Without a barrier, XLA undoes the transpositions on CPUs.
  images, kernel = jax.lax.platform_dependent(
    images, kernel, cpu=barrier, default=lambda *args: args
  )
  return _convolve(images, kernel, pad=pad, rhs_dilation=(stride, stride)).transpose(1, 2, 0, 3)


def _promoted(x, kernel):
  dtype = jnp.result_type(x, kernel)
  return x.astype(dtype), kernel.astype(dtype)


def _convolve(x, kernel, stride=1, pad=0, **options):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad),) * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    **options,
  )


class EqualLinear(nn.Module):
  """Fully connected layer with an equalised learning rate, `[..., in] -> [..., features]`.

  Attributes:
    features: output size.
    lr_multiplier: learning rate multiplier; the kernel is initialised from N(0, 1) / lr_multiplier.
    bias_init: initial bias.
    activate: whether to apply `fused_leaky_relu`.
  """

  features: int
  lr_multiplier: float = 1.0
  bias_init: float = 0.0
  activate: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    normal = nn.initializers.normal(1 / self.lr_multiplier)
    kernel = self.param('kernel', normal, (x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.constant(self.bias_init), (self.features,))
    y = x @ (kernel * (self.lr_multiplier / math.sqrt(x.shape[-1]))) + bias * self.lr_multiplier
    return fused_leaky_relu(y) if self.activate else y


class EqualConv(nn.Module):
  """Convolution with an equalised learning rate, `[B, H, W, in] -> [B, H', W', features]`.

  Attributes:
    features: output channels.
    size: side of the kernel.
    convolution: `same` or `downsampling`.
    bias: whether to add a bias.
    activate: whether to apply `fused_leaky_relu`.
  """

  features: int
  size: int
  convolution: Convolution = same
  bias: bool = True
  activate: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = self.convolution(x, _equal_kernel(self, self.size, x.shape[-1], self.features))
    if self.bias:
      y = y + self.param('bias', nn.initializers.zeros, (self.features,))
    return fused_leaky_relu(y) if self.activate else y


class ModulatedConv(nn.Module):
  """Convolution whose input channels are scaled by a style (Karras et al. 2020, sec. 2.2).

  `[B, H, W, in], [B, D] -> [B, H', W', features]`. There are no kernels per example: activations
  are scaled before the convolution, and divided by the norm of the scaled kernel after it.

  Attributes:
    features: output channels.
    size: side of the kernel.
    convolution: `same`, `upsampling` or `downsampling`.
    demodulate: whether to divide output channels by the norm of their scaled kernel.
  """

  features: int
  size: int
  convolution: Convolution = same
  demodulate: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
    style = EqualLinear(x.shape[-1], bias_init=1.0, name='affine')(w)
    kernel = _equal_kernel(self, self.size, x.shape[-1], self.features)
    y = self.convolution(x * style[:, None, None, :], kernel)
    if self.demodulate:
      power = jnp.square(style) @ jnp.sum(jnp.square(kernel), axis=(0, 1))
      y = y * jax.lax.rsqrt(power + EPSILON)[:, None, None, :]
    return y


def _equal_kernel(module: nn.Module, size: int, inputs: int, features: int) -> jax.Array:
  kernel = module.param('kernel', nn.initializers.normal(1.0), (size, size, inputs, features))
  return kernel / (size * math.sqrt(inputs))
