"""Region-adaptive normalisation: a label map and style codes scale and shift normalised features.

Two branches say by how much: SPADE, a small network over the label map (Park et al. 2019), and the
style branch, which turns the code of each pixel's region into maps (after SEAN, Zhu et al. 2020).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.superstylenet import layers
from step_jax.models.norms import BatchNorm


def gsas(codes: jax.Array, weight: jax.Array) -> jax.Array:
  """Attention inside of each style code, `[B, L, C]`: adds one number to all its entries.

  The original attends from every entry `i` of a code to every entry `j`, with a softmax over `i` of
  `a s_j + b s_i + c`. The softmax cancels what does not depend on `i`, so `b` alone matters, the
  result is the same for all `j`, and the C x C matrix need not be made:
  `s + <softmax(b s), s> / C`.

  Args:
    codes: `[B, L, C]`.
    weight: scalar, `b`.
  """
  attention = nn.softmax(weight * codes, axis=-1)
  return codes + jnp.sum(attention * codes, axis=-1, keepdims=True) / codes.shape[-1]


def style_maps(
  labels: jax.Array, styles: jax.Array, kernel: jax.Array, scale: jax.Array | float = 1.0
) -> jax.Array:
  """3x3 convolution of the map that holds, at each pixel, the style of its label.

  The map is constant on each region, so the sum over its channels is taken once per label and tap,
  and pixels only add up what their nine neighbours' labels say. The map itself, `[B, h, w, D]`, is
  never made.

  Args:
    labels: int `[B, h, w]`; a pixel whose label is not in `0 ... L - 1` has a style of zeros.
    styles: `[B, L, D]`.
    kernel: `[3, 3, D, out]`.
    scale: what the result is multiplied by, `[out]`.

  Returns:
    `[B, h, w, out]`.
  """
  taps = jnp.einsum('bld,tdo->btlo', styles, kernel.reshape(9, *kernel.shape[2:])) * scale
  patches = layers.label_patches(labels, styles.shape[1], styles.dtype)
  maps = jnp.einsum('bptl,btlo->bpo', patches, taps)
  return maps.reshape(*labels.shape, kernel.shape[-1])


class ACE(nn.Module):
  """Noise, batch norm, then scale and shift by label map and codes, `[B, h, w, C]` to the same.

  Attributes:
    features: channels, C.
    num_labels: labels of the map, L.
    style_size: length of a code.
    label_width: what a fully connected layer per label makes of a code.
    spade_width: channels of SPADE's hidden layer.
    style: whether there is a style branch; without it SPADE alone decides.
    dtype: compute type of convolutions; parameters and statistics stay float32.
  """

  features: int
  num_labels: int
  style_size: int
  label_width: int
  spade_width: int = 128
  style: bool = True
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    out = 2 * self.features
    self.norm = BatchNorm(affine=False)
    self.spade_shared = layers.Conv(self.spade_width, dtype=self.dtype)
    self.spade = layers.Conv(out, parts=2, dtype=self.dtype)
    self.noise_scale = self.param('noise_scale', nn.initializers.zeros, (self.features,))
    if self.style:
      per_label = nn.initializers.variance_scaling(0.02**2, 'fan_avg', 'normal', batch_axis=(0,))
      shape = (self.num_labels, self.style_size, self.label_width)
      self.label_kernel = self.param('label_kernel', per_label, shape)
      self.label_bias = self.param('label_bias', nn.initializers.zeros, shape[::2])
      # Half of a 1x1 convolution of two channels, hence its fans.
      attention = nn.initializers.normal(0.02 * (2 / 3) ** 0.5)
      self.gsas_weight = self.param('gsas_weight', attention, ())
      init = layers.side_by_side(layers.xavier, 2)
      self.style_kernel = self.param('style_kernel', init, (3, 3, self.label_width, out))
      self.style_bias = self.param('style_bias', nn.initializers.zeros, (out,))
      self.blend_scale = self.param('blend_scale', nn.initializers.zeros, ())
      self.blend_shift = self.param('blend_shift', nn.initializers.zeros, ())

  def layout(self, labels: jax.Array, share: jax.Array | None = None) -> jax.Array:
    """SPADE's scales and shifts, which depend on the label map alone.

    Args:
      labels: int `[B, h, w]`.
      share: what they are multiplied by, `[2 C]`.

    Returns:
      `[B, h, w, 2 C]`.
    """
    hidden = self.spade_shared(layers.one_hot(labels, self.num_labels, self.dtype))
    return self.spade(nn.relu(hidden), scale=share)

  def styles(self, codes: jax.Array) -> jax.Array:
    """What the layer of each label makes of its code, `[B, L, style_size] -> [B, L, width]`."""
    mixed = gsas(codes.astype(jnp.float32), self.gsas_weight)
    return nn.relu(jnp.einsum('blc,lcd->bld', mixed, self.label_kernel) + self.label_bias)

  def __call__(
    self,
    x: jax.Array,
    labels: jax.Array,
    codes: jax.Array,
    noise: jax.Array | None = None,
    train: bool = False,
    layout: jax.Array | None = None,
  ) -> jax.Array:
    """Normalises `x`.

    Args:
      x: `[B, h, w, C]`.
      labels: int `[B, h, w]`.
      codes: `[B, L, style_size]`, scaled to about [-1, 1].
      noise: `[B, h, w, 1]` from N(0, 1); None adds none.
      train: whether statistics come from the batch and move.
      layout: `layout(labels)` where it is known already, `[B or 1, h, w, 2 C]`.
    """
    if noise is not None:
      x = x + (noise * self.noise_scale).astype(x.dtype)
    x = self.norm(x, train)
    scale, shift = jnp.split(self._maps(labels, codes, layout), 2, axis=-1)
    return x * (1 + scale) + shift

  def _maps(self, labels, codes, layout) -> jax.Array:
    """Scales and shifts of both branches, `[B, h, w, 2 C]`.

    Kernels and taps are blended, not maps: they are smaller, and so are their gradients.
    """
    if not self.style:
      return self.layout(labels) if layout is None else layout
    share = nn.sigmoid(jnp.stack([self.blend_scale, self.blend_shift]))
    share = jnp.repeat(share, self.features)
    if layout is None:
      maps = self.layout(labels, 1 - share)
    else:
      maps = (1 - share).astype(self.dtype) * layout
    args = (x.astype(self.dtype) for x in (self.styles(codes), self.style_kernel, share))
    of_style = style_maps(labels, *args)
    return of_style + (share * self.style_bias).astype(self.dtype) + maps
