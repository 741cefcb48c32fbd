"""Encoders of images into the latent spaces W and W+ of StyleGAN2.

Each is called with images `[B, size, size, C]` and `train`, and returns styles `[B, n, D]`, or
`[B, D]` for W. Batch norm uses the statistics of the whole batch on all devices.
"""

from collections.abc import Mapping, Sequence
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
# Number of styles from the coarse and middle levels of the pyramid; the others are fine.
COARSE, MIDDLE = 3, 4


def check_images(images: jax.Array, size: int) -> None:
  """Checks that images `[B, H, W, C]` have the input size of an encoder.

  Raises:
    ValueError: they have another size, or the size is not valid for encoders.
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
  """Maps a level of the pyramid to one style, `[B, S, S, C] -> [B, D]`, for a power of two S.

  Stride-2 convolutions with leaky ReLUs of slope 0.01 until S is 1, followed by a linear layer.

  Attributes:
    features: D.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i in range(int(math.log2(x.shape[1]))):
      x = nn.leaky_relu(Conv(self.features, 3, 2, bias=True, name=f'conv{i}')(x), 0.01)
    return EqualLinear(self.features, name='fc')(x[:, 0, 0])


class Heads(nn.Module):
  """Several heads on one map, `[B, S, S, C] -> [B, count, D]`.

  Their parameters are stacked, `[count, …]`. They run one after the other, because the grouped
  convolutions of a vectorised head take more than twice as long on CPUs, and their gradients gather
  the maps of all devices.

  Attributes:
    count: number of heads.
    features: D.
  """

  count: int
  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    head = Map2Style(self.features, parent=None)
    run = lambda params, x: head.apply({'params': params}, x)

    def init(key):
      return jax.vmap(lambda key: head.init(key, x[:1])['params'])(
        jax.random.split(key, self.count)
      )

    params = self.param('heads', init)
    each = [run(jax.tree.map(lambda p: p[i], params), x) for i in range(self.count)]  # noqa: B023
    return jnp.stack(each, axis=1)


class GradualStyleEncoder(nn.Module):
  """Encoder of pSp: a feature pyramid with one head per style (Richardson et al. 2021, fig. 2).

  Attributes:
    num_styles: n; at least 8, so that each level has a head.
    size: height and width of the images, a power of two from 64.
    depths: numbers of units in the stages of the body.
    widths: channels of the stages of the body; the last is also that of the pyramid.
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
    self.coarse = Heads(COARSE, self.style_dim)
    self.middle = Heads(MIDDLE, self.style_dim)
    self.fine = Heads(self.num_styles - COARSE - MIDDLE, self.style_dim)

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
  """Encoder into W, `[B, D]`: mean of the last map of the body, and a linear layer.

  Attributes:
    size, depths, widths, style_dim: see `GradualStyleEncoder`.
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
  """Encoder into W+, `[B, n, D]`, from only the last map of the body.

  Attributes:
    num_styles: n.
    size, depths, widths, style_dim: see `GradualStyleEncoder`.
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
  """ResNet-50 with one linear layer per style, to `[B, n, D]`; n = 1 gives `[B, D]`.

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


def start_from(variables: Mapping, body: Mapping) -> dict:
  """Initialises the body of an encoder with a trained network.

  The first layer is not changed if its number of input channels differs.

  Args:
    variables: variables of the encoder, `{'params', 'batch_stats'}`.
    body: the same collections of `irse.Body` (in `FaceEmbedding`, under `body`) or of
      `resnet.ResNet50`.

  Raises:
    ValueError: the body has other layers or widths.
  """
  kernel = lambda tree: tree['conv']['kernel']
  same = kernel(variables['params']['body']).shape == kernel(body['params']).shape
  first = () if same else ('conv', 'bn', 'prelu')
  started = {}
  for collection, tree in variables.items():
    old, new = tree['body'], body[collection]
    new = {name: old[name] if name in first else new[name] for name in new}
    shapes = [jax.tree.map(jnp.shape, x) for x in (old, new)]
    if shapes[0] != shapes[1]:
      raise ValueError('the trained network has other layers than the body of this encoder')
    started[collection] = {**tree, 'body': new}
  return started
