"""StyleGAN2's residual discriminator (Karras et al. 2020, fig. 7c)."""

from collections.abc import Sequence
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.psp import layers

_GROUP = 4


class ResBlock(nn.Module):
  """`(conv(conv(x)) + skip(x)) / sqrt(2)`, `[B, H, W, in] -> [B, H/2, W/2, features]`."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    half = layers.downsampling
    y = layers.EqualConv(x.shape[-1], 3, name='conv0')(x)
    y = layers.EqualConv(self.features, 3, half, name='conv1')(y)
    skip = layers.EqualConv(self.features, 1, half, bias=False, activate=False, name='skip')(x)
    return (y + skip) / math.sqrt(2)


class Discriminator(nn.Module):
  """Images to logits, `[B, size, size, 3] -> [B, 1]`; B must be below 4 or a multiple of 4.

  The standard deviation over groups of four images is an additional channel at 4 px. Image `i` is
  in group `i % (B / 4)`.

  Attributes:
    channels: channels at 4, 8, … px; see `generator.channel_table`.

  Raises:
    ValueError: the size of the images or of the batch is not valid.
  """

  channels: Sequence[int]

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    size = 4 * 2 ** (len(self.channels) - 1)
    batch = image.shape[0]
    if image.shape[1:3] != (size, size):
      raise ValueError(
        f'this discriminator takes images of {size} x {size} px, not {list(image.shape)}; '
        'resize them'
      )
    group = min(batch, _GROUP)
    if batch % group:
      raise ValueError(
        f'a batch of {batch} cannot be split into groups of {_GROUP} for the discriminator; '
        f'use less than {_GROUP} or a multiple of {_GROUP}'
      )
    x = layers.EqualConv(self.channels[-1], 1, name='from_rgb')(image)
    for i in range(len(self.channels) - 1, 0, -1):
      x = ResBlock(self.channels[i - 1], name=f'b{4 * 2**i}')(x)
    x = concat_group_deviation(x, group)
    x = layers.EqualConv(self.channels[0], 3, name='conv')(x)
    x = layers.EqualLinear(self.channels[0], activate=True, name='fc')(x.reshape(batch, -1))
    return layers.EqualLinear(1, name='out')(x)


def concat_group_deviation(x: jax.Array, group: int) -> jax.Array:
  """Appends a channel with the mean standard deviation of the image's group, `[B, H, W, C + 1]`.

  Args:
    x: `[B, H, W, C]`.
    group: images per group; the images of a group are `B / group` apart.
  """
  groups = x.reshape(group, -1, *x.shape[1:])
  deviation = jnp.sqrt(jnp.var(groups, axis=0) + layers.EPSILON)
  statistic = jnp.tile(jnp.mean(deviation, axis=(1, 2, 3)), group)
  channel = jnp.broadcast_to(statistic[:, None, None, None], (*x.shape[:3], 1))
  return jnp.concatenate([x, channel], axis=-1)
