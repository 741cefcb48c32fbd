"""Generator of StEP: a source image and a style code to an image.

The encoder-decoder of pix2pixHD with skip connections.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.models import layers

NUM_DOWN = 3
NUM_RES = 4
SIZE_MULTIPLE = 2**NUM_DOWN


class ContentEncoder(nn.Module):
  """Maps a source image `[B, H, W, C]` to feature maps, coarsest last.

  Returns a list of five: full size with `width` channels, 1/2, 1/4 and 1/8 of it with 2, 4 and 8
  times as many, and the output of the residual blocks at 1/8.
  """

  width: int = 32
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, source: jax.Array) -> list[jax.Array]:
    conv = lambda features, size, stride, name: layers.Conv(
      features, size, stride, dtype=self.dtype, name=name
    )
    x = nn.relu(layers.InstanceNorm(name='norm0')(conv(self.width, 7, 1, 'conv0')(source)))
    features = [x]
    for i in range(NUM_DOWN):
      x = conv(self.width * 2 ** (i + 1), 3, 2, f'down{i}')(x)
      x = nn.relu(layers.InstanceNorm(name=f'down_norm{i}')(x))
      features.append(x)
    for i in range(NUM_RES):
      x = layers.block(layers.ResBlock, self.remat)(dtype=self.dtype, name=f'res{i}')(x)
    return features + [x]


class UpBlock(nn.Module):
  """Upsampling and two 3x3 convolutions with pixel norm.

  `[B, H, W, C] -> [B, 2H, 2W, features]`.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i in range(2):
      conv = layers.Conv(self.features, 3, upsample=i == 0, dtype=self.dtype, name=f'conv{i}')
      x = layers.pixel_norm(nn.relu(conv(x)))
    return x


class Decoder(nn.Module):
  """Content features and style codes `[B, Z]` to images `[B, H, W, out_channels]` in [-1, 1]."""

  width: int = 32
  out_channels: int = 3
  skip: bool = True
  code_everywhere: bool = True
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, features: list[jax.Array], z: jax.Array) -> jax.Array:
    def join(x, level):
      """Input of a block: skip connection of its level, current map and code, in this order."""
      if self.skip:
        x = jnp.concatenate([features[level], x], axis=-1)
      return layers.concat_code(x, z) if self.code_everywhere else x

    x = layers.concat_code(features[-1], z)
    for i in range(NUM_RES):
      x = layers.block(layers.ResBlock, self.remat)(dtype=self.dtype, name=f'res{i}')(x)
    for level in reversed(range(1, NUM_DOWN + 1)):
      up = layers.block(UpBlock, self.remat)
      x = up(self.width * 2 ** (level - 1), dtype=self.dtype, name=f'up{level}')(join(x, level))
    x = layers.Conv(self.out_channels, 1, dtype=self.dtype, name='rgb')(join(x, 0))
    return jnp.tanh(x.astype(jnp.float32))


class Generator(nn.Module):
  """Translates sources `[B, H, W, C]` in styles `z` `[B, Z]` to RGB images `[B, H, W, 3]`.

  Images are in [-1, 1].

  `H` and `W` must be multiples of 8 (`SIZE_MULTIPLE`). `encode` and `decode` are its two parts: an
  encoded source can be decoded in many styles.

  Attributes:
    width: channels at full size.
    skip: whether decoder blocks have skip connections from the content encoder.
    code_everywhere: whether all decoder blocks get the style code, or only the first one.
    dtype: compute type of the convolutions.
    remat: see `layers.block`.

  Raises:
    ValueError: the source's size is not a multiple of 8.
  """

  width: int = 32
  skip: bool = True
  code_everywhere: bool = True
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  def setup(self):
    shared = {'dtype': self.dtype, 'remat': self.remat}
    self.content_encoder = ContentEncoder(self.width, **shared)
    self.decoder = Decoder(
      self.width, skip=self.skip, code_everywhere=self.code_everywhere, **shared
    )

  def __call__(self, source: jax.Array, z: jax.Array) -> jax.Array:
    return self.decode(self.encode(source), z)

  def encode(self, source: jax.Array) -> list[jax.Array]:
    """Content features of `source`, five maps, finest first; see `ContentEncoder`."""
    height, width = source.shape[1:3]
    if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
      raise ValueError(
        f'the generator needs a height and width that are multiples of {SIZE_MULTIPLE}, got '
        f'{height}x{width}: pad the image (step_jax.images.pad_to_multiple) and crop the result'
      )
    return self.content_encoder(source)

  def decode(self, features: list[jax.Array], z: jax.Array) -> jax.Array:
    """Content features and style codes `[B, Z]` to images `[B, H, W, 3]` in [-1, 1]."""
    return self.decoder(features, z)
