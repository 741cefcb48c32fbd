"""Multi-scale PatchGAN discriminator of StEP (Isola et al. 2017, Wang et al. 2018)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.models import layers


class PatchDiscriminator(nn.Module):
  """Patch discriminator of one scale.

  `[B, H, W, C]` to logits `[B, H/8, W/8, 1]`; sizes are rounded up at each halving.
  """

  width: int = 32
  groups: int = 1
  spectral_norm: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = lambda features, stride, name: layers.Conv(
      features, 4, stride, spectral_norm=self.spectral_norm, dtype=self.dtype, name=name
    )
    x = layers.leaky_relu(conv(self.width, 2, 'conv0')(x))
    x = layers.leaky_relu(layers.InstanceNorm(name='norm1')(conv(self.width * 2, 2, 'conv1')(x)))
    x = layers.leaky_relu(layers.InstanceNorm(name='norm2')(conv(self.width * 4, 2, 'conv2')(x)))
    self.sow('intermediates', 'minibatch_stddev', layers.minibatch_stddev(x, self.groups))
    x = layers.concat_minibatch_stddev(x, self.groups)
    x = layers.leaky_relu(layers.InstanceNorm(name='norm3')(conv(self.width * 8, 1, 'conv3')(x)))
    return conv(1, 1, 'logits')(x).astype(jnp.float32)


class MultiScaleDiscriminator(nn.Module):
  """Discriminator of images `[B, H, W, 3]` given their sources `[B, H, W, C]`, both in [-1, 1].

  Returns one map of logits `[B, h, w, 1]` per scale, finest first. The input of a scale is the
  concatenation of image and source, at half the size of the previous scale. The mini-batch standard
  deviation couples the images of a mini-batch, so real images and each kind of generated images
  must be in separate mini-batches. One call can process several mini-batches, as interleaved
  `groups`.

  Attributes:
    width: channels of the first layer.
    num_scales: number of scales, each with its own network.
    spectral_norm: whether every kernel is divided by its largest singular value.
    dtype: compute type of the convolutions.
    remat: see `layers.block`.
  """

  width: int = 32
  num_scales: int = 3
  spectral_norm: bool = False
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, image: jax.Array, source: jax.Array, groups: int = 1) -> list[jax.Array]:
    x = jnp.concatenate([image, source], axis=-1)
    logits = []
    for i in range(self.num_scales):
      if i:
        x = layers.downscale(x)
      judge = layers.block(PatchDiscriminator, self.remat)
      judge = judge(self.width, groups, self.spectral_norm, dtype=self.dtype, name=f'scale{i}')
      logits.append(judge(x))
    return logits
