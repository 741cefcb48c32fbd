"""Frozen feature networks with named taps: VGG16, VGG19, SqueezeNet 1.1 and AlexNet.

Each takes RGB images `[B, H, W, 3]` in [-1, 1] and returns a dict of the requested taps
(activations after ReLU). Layers after the last tap are not computed. The input normalisation (mean,
scale) of RGB pixels in 0..255 is part of the parameters, under `input`. The converters in
`step_jax.weights` reorder the kernels of BGR networks, so that weights of any origin use the same
module.
"""

from collections.abc import Callable, Sequence
import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.errors import DataError
from step_jax.models import convolutions

# ImageNet statistics per channel, RGB in 0..255, as in torchvision; and the mean deviation.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
PIXEL_STD = sum(IMAGENET_STD) / 3


class Input(nn.Module):
  """Input normalisation of RGB images in [-1, 1]: `(pixel - mean) * scale`, pixel in 0..255.

  Scales are close to one. Networks trained on normalised pixels are stored with activations in
  pixel units too (`step_jax.weights`), so that the weights of perceptual losses, which were tuned
  for such a network, are valid for all networks.
  """

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    mean = self.param('mean', lambda key: jnp.array(IMAGENET_MEAN, jnp.float32))
    scale = self.param('scale', lambda key: PIXEL_STD / jnp.array(IMAGENET_STD, jnp.float32))
    return ((image + 1.0) * 127.5 - mean) * scale


def read_raw_pixels(params: dict) -> dict:
  """Parameters of a network that gets images in [-1, 1] without further normalisation.

  Some losses use a network trained on normalised images in this way. `input` then has `[3]` means
  of 127.5 and scales that undo the pixel units. Kernels and biases are unchanged.
  """
  mean, scale = jnp.full(3, 127.5), jnp.full(3, PIXEL_STD / 127.5)
  return {**params, 'input': {'mean': mean, 'scale': scale}}


class Fire(nn.Module):
  """Fire module of SqueezeNet, `[B, H, W, in] -> [B, H, W, 2 * expand]`.

  A 1x1 squeeze, then parallel 1x1 and 3x3 expansions, each with ReLU (Iandola et al. 2016).
  """

  squeeze: int
  expand: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.relu(_conv(self.squeeze, 1)(self.dtype, 'squeeze')(x))
    expansions = [
      _conv(self.expand, 1)(self.dtype, 'expand1'),
      _conv(self.expand, 3, padding=1)(self.dtype, 'expand3'),
    ]
    return jnp.concatenate([nn.relu(expand(x)) for expand in expansions], axis=-1)


def max_pool(x: jax.Array, size: int, ceil: bool) -> jax.Array:
  """Max pooling of stride 2 over `[B, H, W, C]`; `ceil` also pools the last, partial window.

  The gradient goes to the first of equal maxima, row by row.

  Raises:
    DataError: the map is smaller than a window.
  """
  ends = [(0, (size - side) % 2 if ceil else 0) for side in x.shape[1:3]]
  for side, (_, end) in zip(x.shape[1:3], ends, strict=True):
    # An export may have symbolic sizes.
    if isinstance(side, int) and side + end < size:
      raise DataError(
        f'images are too small for the feature network, which pools a map of {side} px in windows '
        f'of {size} px: use larger images (data.resize, data.crop), or earlier taps (features.taps)'
      )
  windowed = functools.partial(nn.max_pool, window_shape=(size,) * 2, strides=(2, 2), padding=ends)
  maxima = functools.partial(_max_of_slices, size=size, ends=ends)
  return jax.lax.platform_dependent(x, cpu=maxima, default=windowed)


def _max_of_slices(x, size, ends):
  """`max_pool` without a windowed reduction, whose gradient is slow on CPU."""
  x = jnp.pad(x, ((0, 0), *ends, (0, 0)), constant_values=-jnp.inf)
  for axis in (2, 1):
    count = (x.shape[axis] - size) // 2 + 1
    parts = [jax.lax.slice_in_dim(x, i, i + 2 * (count - 1) + 1, 2, axis) for i in range(size)]
    x = functools.reduce(lambda best, part: jnp.where(best >= part, best, part), parts)
  return x


class TrunkConv(nn.Module):
  """A plain convolution, He-initialised, `[B, H, W, in] -> [B, H', W', features]`."""

  features: int
  size: int
  stride: int = 1
  padding: int = 0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.he_normal(), shape).astype(self.dtype)
    bias = self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
    x = x.astype(self.dtype)
    if (self.size, self.stride, self.padding) == (3, 1, 1):
      return convolutions.conv3x3(x, kernel) + bias
    return convolutions.conv(x, kernel, self.stride, ((self.padding,) * 2,) * 2) + bias


def _conv(features: int, size: int, stride: int = 1, padding: int = 0) -> Callable[..., nn.Module]:
  """A function `(dtype, name)` that makes a convolution."""
  return lambda dtype, name: TrunkConv(features, size, stride, padding, dtype, name=name)


def _fire(squeeze: int, expand: int) -> Callable[..., nn.Module]:
  return lambda dtype, name: Fire(squeeze, expand, dtype, name=name)


def _pool(size: int, ceil: bool) -> Callable[..., Callable]:
  return lambda dtype, name: functools.partial(max_pool, size=size, ceil=ceil)


class FeatureNet(nn.Module):
  """A sequential network given by `PLAN`: `(name, layer)` in order, where each layer can be a tap.

  Attributes:
    taps: names of the layers whose outputs are returned.
    dtype: compute type; parameters stay float32.

  Raises:
    ValueError: the network does not have one of the taps.
  """

  taps: Sequence[str]
  dtype: jnp.dtype = jnp.float32
  PLAN: ClassVar[tuple] = ()

  @nn.compact
  def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
    names = [name for name, _ in self.PLAN]
    for tap in self.taps:
      if tap not in names:
        raise ValueError(f'{type(self).__name__} has no tap {tap!r}; it has {", ".join(names)}')
    x = Input(name='input')(image)
    activations = {}
    for name, layer in self.PLAN:
      x = layer(self.dtype, name)(x)
      if name.startswith('conv'):
        x = nn.relu(x)
      if name in self.taps:
        activations[name] = x
      if len(activations) == len(self.taps):
        break
    return {tap: activations[tap] for tap in self.taps}


def _vgg(counts: Sequence[int], ceil: bool) -> tuple:
  """The plan of a VGG network with `counts` convolutions in each block."""
  return tuple(
    entry
    for block, (features, count) in enumerate(
      zip((64, 128, 256, 512, 512), counts, strict=True), start=1
    )
    for entry in (
      [(f'pool{block - 1}', _pool(2, ceil=ceil))] * (block > 1)
      + [(f'conv{block}_{i}', _conv(features, 3, padding=1)) for i in range(1, count + 1)]
    )
  )


class VGG16(FeatureNet):
  """VGG16 up to conv5_3 (Simonyan and Zisserman 2015); taps `conv1_1` ... `conv5_3`.

  StEP taps `conv{1..5}_2`.
  """

  PLAN = _vgg((2, 2, 3, 3, 3), ceil=True)


class VGG19(FeatureNet):
  """VGG19 up to conv5_4 (Simonyan and Zisserman 2015); taps `conv1_1` ... `conv5_4`.

  Pooling drops an odd last row or column, as in PyTorch.
  """

  PLAN = _vgg((2, 2, 4, 4, 4), ceil=False)


class SqueezeNet11(FeatureNet):
  """SqueezeNet 1.1 up to fire9 (Iandola et al. 2016); taps `conv1`, `fire2` ... `fire9`.

  LPIPS taps all but `fire2` and `fire4`.
  """

  PLAN = (
    ('conv1', _conv(64, 3, stride=2)),
    ('pool1', _pool(3, ceil=True)),
    ('fire2', _fire(16, 64)),
    ('fire3', _fire(16, 64)),
    ('pool3', _pool(3, ceil=True)),
    ('fire4', _fire(32, 128)),
    ('fire5', _fire(32, 128)),
    ('pool5', _pool(3, ceil=True)),
    ('fire6', _fire(48, 192)),
    ('fire7', _fire(48, 192)),
    ('fire8', _fire(64, 256)),
    ('fire9', _fire(64, 256)),
  )


class AlexNet(FeatureNet):
  """Convolutions of the one-column AlexNet (Krizhevsky 2014); taps `conv1` ... `conv5`.

  LPIPS taps all of them.
  """

  PLAN = (
    ('conv1', _conv(64, 11, stride=4, padding=2)),
    ('pool1', _pool(3, ceil=False)),
    ('conv2', _conv(192, 5, padding=2)),
    ('pool2', _pool(3, ceil=False)),
    ('conv3', _conv(384, 3, padding=1)),
    ('conv4', _conv(256, 3, padding=1)),
    ('conv5', _conv(256, 3, padding=1)),
  )


FEATURE_NETS = {
  'vgg16': VGG16,
  'vgg19': VGG19,
  'squeezenet1_1': SqueezeNet11,
  'alexnet': AlexNet,
}
