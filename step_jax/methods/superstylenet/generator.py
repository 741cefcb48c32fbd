"""The generator: label map and one style code per label to image."""

from collections.abc import Mapping
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from step_jax.methods.superstylenet import layers
from step_jax.methods.superstylenet.ace import ACE
from step_jax.models.layers import upscale

# Name, input and output width in units of the generator's width, whether the block uses codes.
BLOCKS = (
  ('head_0', 16, 16, True),
  ('middle_0', 16, 16, True),
  ('middle_1', 16, 16, True),
  ('up_0', 16, 8, True),
  ('up_1', 8, 4, True),
  ('up_2', 4, 2, True),
  ('up_3', 2, 1, False),
)
# Blocks preceded by an upsampling, in the order in which upsamplings are assigned.
_DOUBLED = ('up_3', 'up_2', 'up_1', 'up_0', 'middle_0', 'middle_1')
MOST_UPSAMPLINGS = len(_DOUBLED)
_SMALLEST_MAP = 8


def num_upsamplings(size: int) -> int:
  """Upsamplings for images of a size: at most the original's 5, the smallest map at least 8 x 8.

  On smaller maps, a region is smaller than a pixel, so editing one region affects all others.

  Args:
    size: the shorter side in pixels, at least 16.
  """
  count = 5
  while count > 1 and size < _SMALLEST_MAP * 2**count:
    count -= 1
  return count


def norms_of(inputs: int, features: int) -> tuple[str, ...]:
  """Names of the `ACE` layers in a block from `inputs` to `features` channels."""
  return ('ace_0', 'ace_1') + (('ace_s',) if inputs != features else ())


class ResBlock(nn.Module):
  """Residual block of two normalised convolutions, `[B, h, w, in] -> [B, h, w, features]`.

  The shortcut is a 1x1 convolution if the numbers of channels differ.

  Attributes:
    inputs, features: channels.
    num_labels, style_size, label_width, spade_width, style, dtype: as in `ACE`.
  """

  inputs: int
  features: int
  num_labels: int
  style_size: int
  label_width: int
  spade_width: int
  style: bool
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    middle = min(self.inputs, self.features)
    ace = lambda features: ACE(
      features,
      self.num_labels,
      self.style_size,
      self.label_width,
      self.spade_width,
      self.style,
      self.dtype,
    )
    conv = lambda features, **options: layers.Conv(
      features, spectral=True, dtype=self.dtype, **options
    )
    self.ace_0, self.ace_1 = ace(self.inputs), ace(middle)
    self.conv_0, self.conv_1 = conv(middle), conv(self.features)
    if self.inputs != self.features:
      self.ace_s, self.conv_s = ace(self.inputs), conv(self.features, size=1, bias=False)

  def layout(self, labels: jax.Array) -> dict[str, jax.Array]:
    """`ACE.layout` of every norm, for labels `[B, h, w]`."""
    norms = norms_of(self.inputs, self.features)
    return {name: getattr(self, name).layout(labels) for name in norms}

  def __call__(
    self,
    x: jax.Array,
    labels: jax.Array,
    codes: jax.Array,
    noise: Mapping[str, jax.Array] | None = None,
    train: bool = False,
    layout: Mapping[str, jax.Array] | None = None,
  ) -> jax.Array:
    """Arguments: see `ACE`; noise and layout are given per norm."""
    noise, layout = noise or {}, layout or {}

    def norm(name, x):
      return getattr(self, name)(x, labels, codes, noise.get(name), train, layout.get(name))

    y = self.conv_0(layers.leaky_relu(norm('ace_0', x)), train)
    y = self.conv_1(layers.leaky_relu(norm('ace_1', y)), train)
    if self.inputs != self.features:
      x = self.conv_s(norm('ace_s', x), train)
    return x + y


class Generator(nn.Module):
  """Label map and codes to an image, `[B, H, W], [B, L, style_size] -> [B, H, W, 3]` in [-1, 1].

  Supports any number of labels and any size: if a side is not a multiple of `2 ** num_upsamplings`,
  sizes of feature maps are rounded up and cropped after upsampling.

  Attributes:
    num_labels: number of labels, L.
    style_size: length of a code.
    width: channels of the last layer before the image; the first blocks have 16 times as many.
    num_upsamplings: upsamplings between the smallest map and the image, 1 ... 6.
    label_width: outputs of the fully connected layer of each label; None: `style_size`, as in the
      original.
    spade_width: channels of SPADE's hidden layers.
    dtype: compute type; parameters and statistics stay float32.

  Raises:
    ValueError: `num_upsamplings` is out of range.
  """

  num_labels: int
  style_size: int = 512
  width: int = 64
  num_upsamplings: int = 5
  label_width: int | None = None
  spade_width: int = 128
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    if not 1 <= self.num_upsamplings <= MOST_UPSAMPLINGS:
      raise ValueError(f'num_upsamplings is {self.num_upsamplings}; choose 1 to {MOST_UPSAMPLINGS}')
    self.fc = layers.Conv(16 * self.width, dtype=self.dtype)
    for name, inputs, features, style in BLOCKS:
      block = ResBlock(
        inputs * self.width,
        features * self.width,
        self.num_labels,
        self.style_size,
        self.label_width or self.style_size,
        self.spade_width,
        style,
        self.dtype,
      )
      setattr(self, name, block)
    self.conv_img = layers.Conv(3, dtype=self.dtype)

  @property
  def halvings(self) -> dict[str, int]:
    """How often each block halves the size of the image."""
    doubled = _DOUBLED[: self.num_upsamplings]
    doublings = itertools.accumulate(name in doubled for name, *_ in BLOCKS)
    return {
      name: self.num_upsamplings - done for (name, *_), done in zip(BLOCKS, doublings, strict=True)
    }

  def sizes(self, height: int, width: int) -> dict[str, tuple[int, int]]:
    """Height and width of the maps in each block, for an image of `height` and `width`."""
    return {
      name: (-(-height // 2**count), -(-width // 2**count)) for name, count in self.halvings.items()
    }

  def pyramid(self, labels: jax.Array) -> dict[str, jax.Array]:
    """The label map of each block, in its size: `[B, H, W]` to block -> `[B, h, w]`."""
    sizes = self.sizes(*labels.shape[1:])
    return {name: layers.nearest_labels(labels, *size) for name, size in sizes.items()}

  def noise_shapes(self, batch: int, height: int, width: int) -> dict[str, dict[str, tuple]]:
    """Shapes `(B, h, w, 1)` of the noise maps: block -> norm -> shape."""
    return {
      name: {
        norm: (batch, *self.sizes(height, width)[name], 1) for norm in norms_of(inputs, features)
      }
      for name, inputs, features, _ in BLOCKS
    }

  def layout(self, labels: jax.Array) -> dict[str, dict[str, jax.Array]]:
    """Everything that depends only on the label map: SPADE's maps of every norm, by block.

    This is two thirds of the work for an image (196 of 295 GFLOP at 256 px with 19 labels).
    Computed once, it can be reused for many styles of one layout.

    Args:
      labels: int `[B, H, W]`.
    """
    return {name: getattr(self, name).layout(small) for name, small in self.pyramid(labels).items()}

  def __call__(
    self,
    labels: jax.Array,
    codes: jax.Array,
    noise: Mapping[str, Mapping[str, jax.Array]] | None = None,
    train: bool = False,
    layout: Mapping[str, Mapping[str, jax.Array]] | None = None,
  ) -> jax.Array:
    """Generates images.

    Args:
      labels: int `[B, H, W]`, or `[1, H, W]` for many styles of one layout; labels outside
        `0 ... L - 1` have no style.
      codes: `[B, L, style_size]`, scaled to about [-1, 1].
      noise: block -> norm -> N(0, 1), with the shapes of `noise_shapes`; None: no noise.
      train: whether to use and update batch statistics (`batch_stats` and `spectral`).
      layout: `layout(labels)`, if it is already computed.

    Returns:
      float32 `[B, H, W, 3]` in [-1, 1].
    """
    labels = jnp.broadcast_to(labels, (codes.shape[0], *labels.shape[1:]))
    return self.draw(self.pyramid(labels), codes, noise, train, layout)

  def draw(
    self,
    pyramid: Mapping[str, jax.Array],
    codes: jax.Array,
    noise: Mapping[str, Mapping[str, jax.Array]] | None = None,
    train: bool = False,
    layout: Mapping[str, Mapping[str, jax.Array]] | None = None,
  ) -> jax.Array:
    """Generates images from the label map of each block, or a part of it; see `__call__`."""
    noise, layout = noise or {}, layout or {}
    x = self.fc(layers.one_hot(pyramid[BLOCKS[0][0]], self.num_labels, self.dtype))
    for name, *_ in BLOCKS:
      labels = pyramid[name]
      height, width = labels.shape[1:]
      if x.shape[1:3] != (height, width):
        x = upscale(x)[:, :height, :width]
      x = getattr(self, name)(x, labels, codes, noise.get(name), train, layout.get(name))
    x = self.conv_img(layers.leaky_relu(x))
    return jnp.tanh(x.astype(jnp.float32))


def draw_noise(
  key: jax.Array, generator: Generator, batch: int, height: int, width: int
) -> dict[str, dict[str, jax.Array]]:
  """Noise maps for a batch of images, from N(0, 1): block -> norm -> `[B, h, w, 1]`."""
  shapes = generator.noise_shapes(batch, height, width)
  leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
  # A single call, because separate random number generators take minutes to compile. The first axis
  # is that of the batch, so that each device draws the noise of its images.
  ends = np.cumsum([math.prod(shape[1:]) for shape in leaves])
  parts = jnp.split(jax.random.normal(key, (batch, int(ends[-1]))), ends[:-1], axis=1)
  return tree.unflatten([x.reshape(shape) for x, shape in zip(parts, leaves, strict=True)])
