"""The discriminator: classifies patches of an image, given its label map, at two scales."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.superstylenet import layers

NUM_SCALES = 2
_EPSILON = 1e-5


def instance_norm(x: jax.Array) -> jax.Array:
  """Normalises each image and channel over its pixels by the biased variance, `[B, H, W, C]`."""
  wide = x.astype(jnp.float32)
  mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
  variance = jnp.mean(jnp.square(wide - mean), axis=(1, 2), keepdims=True)
  return ((wide - mean) * jax.lax.rsqrt(variance + _EPSILON)).astype(x.dtype)


def half_size(x: jax.Array) -> jax.Array:
  """3x3 average pooling with stride 2; padding is not counted, `[B, H, W, C]`."""
  return nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False)


class PatchDiscriminator(nn.Module):
  """One scale, `[B, H, W, in]` to its four maps, the last of which are logits `[B, h, w, 1]`.

  Attributes:
    width: channels of the first map.
    dtype: compute type; parameters and vectors stay float32.
  """

  width: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> list[jax.Array]:
    maps = [layers.leaky_relu(layers.Conv(self.width, 4, 2, dtype=self.dtype, name='conv_0')(x))]
    for i in (1, 2):
      conv = layers.Conv(
        self.width * 2**i, 4, 2, bias=False, spectral=True, dtype=self.dtype, name=f'conv_{i}'
      )
      maps.append(layers.leaky_relu(instance_norm(conv(maps[-1], train))))
    maps.append(layers.Conv(1, 4, dtype=self.dtype, name='conv_3')(maps[-1]))
    return maps


class Discriminator(nn.Module):
  """Label map and image to the maps of two scales, the full size first.

  Attributes:
    num_labels: labels of the map.
    width: channels of the first map of each scale.
    dtype: compute type; parameters and vectors stay float32.
  """

  num_labels: int
  width: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, labels: jax.Array, image: jax.Array, train: bool = False
  ) -> list[list[jax.Array]]:
    """Judges images.

    Args:
      labels: int `[B, H, W]`.
      image: `[B, H, W, 3]` in [-1, 1].
      train: whether to update the vectors of spectral norm, in the collection `spectral`.

    Returns:
      Scale -> layer -> `[B, h, w, C]`; the last layer holds logits.
    """
    x = jnp.concatenate([layers.one_hot(labels, self.num_labels, image.dtype), image], axis=-1)
    maps = []
    for i in range(NUM_SCALES):
      maps.append(PatchDiscriminator(self.width, self.dtype, name=f'scale_{i}')(x, train))
      if i < NUM_SCALES - 1:
        x = half_size(x)
    return maps
