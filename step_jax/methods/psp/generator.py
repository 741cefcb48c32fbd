"""StyleGAN2's generator: a mapping network from Z to W and a synthesis network from W+ to images.

A style vector is `[D]`; W+ has one for each of the `2 * len(channels)` layers, `[n, D]`. Operations
between the two networks (one style for all layers, truncation, mixing) are pure functions.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.psp import fir, layers


def channel_table(size: int, multiplier: float = 2, most: int = 512) -> tuple[int, ...]:
  """Channels at 4, 8, …, `size` px: `most` up to 32 px, `16384 * multiplier / px` beyond.

  Multiplier 2 is the paper's configuration F, 1 its configuration E.

  Raises:
    ValueError: the size is not a power of two from 8.
  """
  if size < 8 or size & (size - 1):
    raise ValueError(f'StyleGAN2 draws images of a power of two from 8 px, not {size} px')
  sides = [2**i for i in range(2, size.bit_length())]
  return tuple(most if r <= 32 else min(most, int(16384 * multiplier / r)) for r in sides)


class MappingNetwork(nn.Module):
  """Z to W, `[B, D] -> [B, D]`: pixel norm, then fully connected layers at a low learning rate.

  Attributes:
    depth: number of layers.
    style_dim: D.
    lr_multiplier: learning rate multiplier of the layers.
  """

  depth: int
  style_dim: int
  lr_multiplier: float

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    x = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), axis=-1, keepdims=True) + layers.EPSILON)
    for i in range(self.depth):
      x = layers.EqualLinear(self.style_dim, self.lr_multiplier, activate=True, name=f'fc{i}')(x)
    return x


class StyledConv(nn.Module):
  """Modulated 3x3 convolution, noise, bias, activation: `[B, H, W, in] -> [B, H', W', features]`.

  Attributes:
    features: output channels.
    convolution: a convolution from `layers`.
  """

  features: int
  convolution: layers.Convolution = layers.same

  @nn.compact
  def __call__(self, x: jax.Array, w: jax.Array, noise: jax.Array | None) -> jax.Array:
    y = layers.ModulatedConv(self.features, 3, self.convolution, name='conv')(x, w)
    if noise is None or self.is_initializing():
      normal = lambda shape: jax.random.normal(self.make_rng('params'), shape)
      noise = self.variable('noise', 'const', normal, (1, *y.shape[1:3], 1)).value
    strength = self.param('noise_strength', nn.initializers.zeros, ())
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return layers.fused_leaky_relu(y + strength * noise + bias)


class ToRGB(nn.Module):
  """Maps features to an image `[B, H, W, 3]` and adds the upsampled one of the level below."""

  @nn.compact
  def __call__(self, x: jax.Array, w: jax.Array, skip: jax.Array | None = None) -> jax.Array:
    rgb = layers.ModulatedConv(3, 1, demodulate=False, name='conv')(x, w)
    rgb = rgb + self.param('bias', nn.initializers.zeros, (3,))
    return rgb if skip is None else rgb + fir.upsample(skip)


class Block(nn.Module):
  """One level of the synthesis network: upsampling convolution, convolution, image.

  The lowest level has a learned constant instead of the upsampling convolution.

  Attributes:
    features: channels.
    first: whether it is the lowest level.
  """

  features: int
  first: bool = False

  @nn.compact
  def __call__(
    self,
    x: jax.Array | None,
    skip: jax.Array | None,
    w_plus: Sequence[jax.Array],
    noise: Sequence[jax.Array | None],
  ) -> tuple[jax.Array, jax.Array]:
    if self.first:
      const = self.param('const', nn.initializers.normal(1.0), (1, 4, 4, self.features))
      x = jnp.broadcast_to(const, (w_plus[0].shape[0], *const.shape[1:]))
    else:
      x = StyledConv(self.features, layers.upsampling, name='conv_up')(x, w_plus[0], noise[0])
    x = StyledConv(self.features, name='conv')(x, w_plus[-2], noise[-1])
    return x, ToRGB(name='torgb')(x, w_plus[-1], skip)


class SynthesisNetwork(nn.Module):
  """W+ to images, `[B, n, D] -> [B, size, size, 3]`, about [-1, 1] and not clipped.

  Attributes:
    channels: channels of each level.
  """

  channels: Sequence[int]

  @nn.compact
  def __call__(self, w_plus: jax.Array, noise: Sequence[jax.Array] | None) -> jax.Array:
    styles = [w_plus[:, i] for i in range(w_plus.shape[1])]
    noise = [None] * (2 * len(self.channels) - 1) if noise is None else noise
    x, image = Block(self.channels[0], first=True, name='b4')(None, None, styles[:2], noise[:1])
    for i, features in enumerate(self.channels[1:], start=1):
      # The first convolution of a level shares its style with the image of the level below.
      own = styles[2 * i - 1 : 2 * i + 2], noise[2 * i - 1 : 2 * i + 1]
      x, image = Block(features, name=f'b{4 * 2**i}')(x, image, *own)
    return image


class Generator(nn.Module):
  """StyleGAN2's generator; calling it generates images from latents `[B, D]` of N(0, I).

  The collection `noise` has the constant noise that the synthesis network uses by default; it is
  neither trained nor averaged.

  Attributes:
    channels: channels at 4, 8, … px; see `channel_table`.
    style_dim: length of latents and styles, D.
    mapping_depth: number of layers of the mapping network.
    mapping_lr_multiplier: learning rate multiplier of these layers.
  """

  channels: Sequence[int]
  style_dim: int = 512
  mapping_depth: int = 8
  mapping_lr_multiplier: float = 0.01

  def setup(self):
    self.mapping = MappingNetwork(self.mapping_depth, self.style_dim, self.mapping_lr_multiplier)
    self.synthesis = SynthesisNetwork(self.channels)

  @property
  def size(self) -> int:
    """Height and width of the images."""
    return 4 * 2 ** (len(self.channels) - 1)

  @property
  def num_styles(self) -> int:
    """Number of style vectors in W+, n."""
    return 2 * len(self.channels)

  def __call__(self, z: jax.Array, noise: Sequence[jax.Array] | None = None) -> jax.Array:
    return self.synthesize(broadcast(self.map(z), self.num_styles), noise)

  def map(self, z: jax.Array) -> jax.Array:
    """Z to W, `[B, D] -> [B, D]`."""
    return self.mapping(z)

  def synthesize(self, w_plus: jax.Array, noise: Sequence[jax.Array] | None = None) -> jax.Array:
    """W+ to images, `[B, n, D] -> [B, size, size, 3]`.

    Args:
      w_plus: one style per layer.
      noise: one array per convolution, see `random_noise`; None: the constant noise.

    Raises:
      ValueError: the number of styles differs from the number of layers.
    """
    if w_plus.shape[1:] != (self.num_styles, self.style_dim):
      raise ValueError(
        f'a generator of {self.size} px takes styles [B, {self.num_styles}, {self.style_dim}], '
        f'not {list(w_plus.shape)}; use an encoder or latents made for this output size'
      )
    return self.synthesis(w_plus, noise)


def noise_sides(size: int) -> list[int]:
  """Side of the noise of each convolution of a generator of `size` px."""
  return [2 ** ((i + 5) // 2) for i in range(2 * (size.bit_length() - 1) - 3)]


def random_noise(key: jax.Array, batch: int, size: int, dtype=jnp.float32) -> list[jax.Array]:
  """Noise from N(0, 1) for every convolution of a generator of `size` px: `[B, H, W, 1]` each."""
  sides = noise_sides(size)
  keys = jax.random.split(key, len(sides))
  return [
    jax.random.normal(key, (batch, side, side, 1), dtype)
    for key, side in zip(keys, sides, strict=True)
  ]


def broadcast(w: jax.Array, num_styles: int) -> jax.Array:
  """One style for all layers, `[B, D] -> [B, n, D]`; `[B, n, D]` is returned unchanged."""
  if w.ndim == 3:
    return w
  return jnp.broadcast_to(w[:, None, :], (w.shape[0], num_styles, w.shape[1]))


def truncate(w: jax.Array, mean: jax.Array, psi: float) -> jax.Array:
  """Moves styles towards the mean of W: `mean + psi * (w - mean)`.

  Less variety and fewer bad images (Karras et al. 2019, appendix B).

  Args:
    w: `[..., D]`.
    mean: `[D]`.
    psi: 1 leaves `w` unchanged, 0 gives the mean.
  """
  return mean + psi * (w - mean)


def mix(first: jax.Array, second: jax.Array, crossover: jax.Array | int) -> jax.Array:
  """Style mixing: layers below `crossover` from `first`, the rest from `second`; `[B, n, D]`."""
  below = jnp.arange(first.shape[1])[:, None] < crossover
  return jnp.where(below, first, second)


def mean_style(
  generator: Generator, variables: Mapping, key: jax.Array, samples: int = 100_000
) -> jax.Array:
  """Mean of W over latents of N(0, I), `[D]`, in chunks of at most 10,000."""
  chunks = -(-samples // 10_000)
  sizes = [samples // chunks + (i < samples % chunks) for i in range(chunks)]

  def total(key, size):
    z = jax.random.normal(key, (size, generator.style_dim))
    return jnp.sum(generator.apply(variables, z, method='map'), axis=0)

  total = jax.jit(total, static_argnums=1)
  keys = jax.random.split(key, chunks)
  return sum(total(key, size) for key, size in zip(keys, sizes, strict=True)) / samples
