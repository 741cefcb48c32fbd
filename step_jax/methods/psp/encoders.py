"""Encoders of images into the latent spaces W and W+ of StyleGAN2.

Each is called with images `[B, size, size, C]` and `train`, and returns styles: `[B, n, D]`, or
`[B, D]` for W. Their batch norm is trained, on the statistics of the whole batch on all devices.
"""

from collections.abc import Sequence
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.psp import resizing, resnet
from step_jax.methods.psp.irse import DEPTHS, WIDTHS, Body
from step_jax.methods.psp.layers import EqualLinear
from step_jax.methods.psp.torch_layers import Conv, Dense
from step_jax.models.norms import BatchNorm

SIZE = 256
LEAST_SIZE = 64
# Styles read from the coarse and from the middle level of the pyramid; the rest is fine.
COARSE, MIDDLE = 3, 4


def check_images(images: jax.Array, size: int) -> None:
  """Makes sure that images `[B, H, W, C]` have the size that an encoder was made for.

  Raises:
    ValueError: they do not, or no encoder has that size.
  """
  if size < LEAST_SIZE or size & (size - 1):
    raise ValueError(
      f'encoders take images of a power of two from {LEAST_SIZE} px, not {size} px; '
      'set model.encoder_size to one'
    )
  if images.shape[1:3] != (size, size):
    raise ValueError(
      f'this encoder takes images of {size} x {size} px, not {list(images.shape)}; '
      'resize them, or train with another model.encoder_size'
    )


class Map2Style(nn.Module):
  """A level of the pyramid to one style, `[B, S, S, C] -> [B, D]`, for a power of two S.

  Convolutions of stride 2 with leaky ReLUs of slope 0.01, as many as bring S to 1, and a linear
  layer.

  Attributes:
    features: D.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i in range(int(math.log2(x.shape[1]))):
      x = nn.leaky_relu(Conv(self.features, 3, 2, bias=True, name=f'conv{i}')(x), 0.01)
    return EqualLinear(self.features, name='fc')(x[:, 0, 0])


def _heads(count: int, features: int, name: str) -> nn.Module:
  """`count` heads side by side, `[B, S, S, C] -> [B, count, D]`; parameters `[count, …]`."""
  heads = nn.vmap(
    Map2Style,
    variable_axes={'params': 0},
    split_rngs={'params': True},
    in_axes=None,
    out_axes=1,
    axis_size=count,
  )
  return heads(features, name=name)


class GradualStyleEncoder(nn.Module):
  """pSp's encoder: a feature pyramid, and a head for each style (Richardson et al. 2021, fig. 2).

  Attributes:
    num_styles: n; at least 8, so that each level has a head.
    size: height and width of the images, a power of two from 64.
    depths: units of the body's stages.
    widths: channels of the body's stages; the last is that of the pyramid.
    style_dim: D.
  """

  num_styles: int
  size: int = SIZE
  depths: Sequence[int] = DEPTHS
  widths: Sequence[int] = WIDTHS
  style_dim: int = 512

  def setup(self):
    if self.num_styles <= COARSE + MIDDLE:
      raise ValueError(
        f'the pyramid encoder has at least {COARSE + MIDDLE + 1} styles, not {self.num_styles}: '
        'use a generator of 32 px or more, or another encoder'
      )
    self.body = Body(self.depths, self.widths)
    self.lateral0, self.lateral1 = (Conv(self.widths[-1], 1, bias=True) for _ in range(2))
    self.coarse = _heads(COARSE, self.style_dim, 'coarse')
    self.middle = _heads(MIDDLE, self.style_dim, 'middle')
    self.fine = _heads(self.num_styles - COARSE - MIDDLE, self.style_dim, 'fine')

  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    levels = self.pyramid(images, train)
    heads = (self.coarse, self.middle, self.fine)
    styles = [head(level) for head, level in zip(heads, levels, strict=True)]
    return jnp.concatenate(styles, axis=1)

  def pyramid(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Feature maps for coarse, middle and fine styles.

    Args:
      images: `[B, size, size, C]`.
      train: whether batch norm uses the batch.

    Returns:
      `[B, size/16, size/16, widths[-1]]`, and the same at `size/8` and at `size/4`.
    """
    check_images(images, self.size)
    _, c1, c2, c3 = self.body(images, train)
    p2 = resizing.bilinear(c3, c2.shape[1]) + self.lateral0(c2)
    p1 = resizing.bilinear(p2, c1.shape[1]) + self.lateral1(c1)
    return c3, p2, p1


class IntoWEncoder(nn.Module):
  """Encoder into W: the mean of the body's last map and a linear layer, to `[B, D]`.

  Attributes:
    size, depths, widths, style_dim: of `GradualStyleEncoder`.
  """

  size: int = SIZE
  depths: Sequence[int] = DEPTHS
  widths: Sequence[int] = WIDTHS
  style_dim: int = 512

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    check_images(images, self.size)
    x = Body(self.depths, self.widths, name='body')(images, train)[-1]
    return EqualLinear(self.style_dim, name='fc')(jnp.mean(x, axis=(1, 2)))


class IntoWPlusEncoder(nn.Module):
  """Encoder into W+ from the body's last map alone, to `[B, n, D]`.

  Attributes:
    num_styles: n.
    size, depths, widths, style_dim: of `GradualStyleEncoder`.
  """

  num_styles: int
  size: int = SIZE
  depths: Sequence[int] = DEPTHS
  widths: Sequence[int] = WIDTHS
  style_dim: int = 512

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    check_images(images, self.size)
    x = Body(self.depths, self.widths, name='body')(images, train)[-1]
    x = resizing.adaptive_pool(BatchNorm(name='out_bn')(x, train), 7)
    x = Dense(self.style_dim, name='out_fc')(x.reshape(x.shape[0], -1))
    x = EqualLinear(self.num_styles * self.style_dim, name='fc')(x)
    return x.reshape(x.shape[0], self.num_styles, self.style_dim)


class ResNetLinearEncoder(nn.Module):
  """ResNet-50 and one linear layer for each style, to `[B, n, D]`; n = 1 gives `[B, D]`.

  Attributes:
    num_styles: n.
    size: height and width of the images.
    style_dim: D.
  """

  num_styles: int
  size: int = SIZE
  style_dim: int = 512

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    check_images(images, self.size)
    x = resnet.ResNet50(name='body')(images, train)
    x = Dense(self.num_styles * self.style_dim, name='fc')(x)
    if self.num_styles == 1:
      return x
    return x.reshape(x.shape[0], self.num_styles, self.style_dim)
