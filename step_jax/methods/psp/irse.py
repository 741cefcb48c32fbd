"""Improved residual networks (IR) of face recognition: encoder bodies and face embeddings.

Deng et al. 2019 (ArcFace), sec. 3.1; squeeze-and-excitation is from Hu et al. 2018.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.psp.torch_layers import Conv, Dense, PReLU
from step_jax.models.norms import BatchNorm

# Number of units in each stage.
DEPTHS = (3, 4, 14, 3)
DEPTHS_101 = (3, 13, 30, 3)
WIDTHS = (64, 128, 256, 512)
FACE_SIZE = 112
_REDUCTION = 16


class SqueezeExcite(nn.Module):
  """Scales each channel by a function of the channel means over the image, `[B, H, W, C]`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    y = jnp.mean(x, axis=(1, 2), keepdims=True)
    y = nn.relu(Conv(channels // _REDUCTION, 1, name='fc1')(y))
    return x * nn.sigmoid(Conv(channels, 1, name='fc2')(y))


class Unit(nn.Module):
  """Residual unit, `[B, H, W, in] -> [B, H / stride, W / stride, features]`.

  `se(bn(conv(prelu(conv(bn(x)))))) + shortcut(x)`; no activation follows.

  Attributes:
    features: output channels.
    stride: stride of the second convolution and of the shortcut.
    squeeze: whether to use squeeze-and-excitation.
  """

  features: int
  stride: int = 1
  squeeze: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    y = BatchNorm(name='bn0')(x, train)
    y = PReLU(name='prelu')(Conv(self.features, 3, name='conv0')(y))
    y = Conv(self.features, 3, self.stride, name='conv1')(y)
    y = BatchNorm(name='bn1')(y, train)
    if self.squeeze:
      y = SqueezeExcite(name='se')(y)
    if x.shape[-1] == self.features:
      return y + x[:, :: self.stride, :: self.stride]
    shortcut = Conv(self.features, 1, self.stride, name='shortcut')(x)
    return y + BatchNorm(name='shortcut_bn')(shortcut, train)


class Body(nn.Module):
  """Four stages of units; the first unit of each stage halves the image.

  `[B, H, W, C]` to the outputs of the stages, `[B, H/2, W/2, widths[0]]` … `[B, H/16, W/16,
  widths[3]]`.

  Attributes:
    depths: number of units in each stage.
    widths: channels of each stage.
    squeeze: whether to use squeeze-and-excitation.
  """

  depths: Sequence[int] = DEPTHS
  widths: Sequence[int] = WIDTHS
  squeeze: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> list[jax.Array]:
    x = Conv(self.widths[0], 3, name='conv')(x)
    x = PReLU(name='prelu')(BatchNorm(name='bn')(x, train))
    outputs, unit = [], 0
    for depth, width in zip(self.depths, self.widths, strict=True):
      for i in range(depth):
        x = Unit(width, 1 if i else 2, self.squeeze, name=f'unit{unit}')(x, train)
        unit += 1
      outputs.append(x)
    return outputs


class FaceEmbedding(nn.Module):
  """Aligned faces to unit vectors, `[B, 112, 112, 3]` in [-1, 1] to `[B, D]`; for inference only.

  The defaults are ArcFace's IR-SE-50. The metric network of the paper, CurricularFace's IR-101, has
  `depths=DEPTHS_101, squeeze=False, affine=False`.

  Attributes:
    depths, squeeze: see `Body`.
    widths: see `Body`; the last one is D.
    affine: whether the last batch norm has parameters.

  Raises:
    ValueError: the images have another size.
  """

  depths: Sequence[int] = DEPTHS
  widths: Sequence[int] = WIDTHS
  squeeze: bool = True
  affine: bool = True

  @nn.compact
  def __call__(self, faces: jax.Array) -> jax.Array:
    if faces.shape[1:] != (FACE_SIZE, FACE_SIZE, 3):
      raise ValueError(
        f'face embeddings take [B, {FACE_SIZE}, {FACE_SIZE}, 3], not {list(faces.shape)}; resize'
      )
    x = Body(self.depths, self.widths, self.squeeze, name='body')(faces, train=False)[-1]
    x = BatchNorm(name='bn')(x, train=False)
    x = Dense(self.widths[-1], name='fc')(x.reshape(x.shape[0], -1))
    x = BatchNorm(affine=self.affine, name='out_bn')(x, train=False)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
