"""Region-adaptive normalisation: a label map and style codes scale and shift normalised features.

Two branches compute scale and shift: SPADE, a small network on the label map (Park et al. 2019),
and the style branch, which maps the code of the region of each pixel (after SEAN, Zhu et al. 2020).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.superstylenet import layers
from step_jax.models.norms import BatchNorm


def gsas(codes: jax.Array, weight: jax.Array) -> jax.Array:
  """Attention within each style code, `[B, L, C]`: adds one number to all its entries.

  The original attends from every entry `i` of a code to every entry `j`, with a softmax over `i` of
  `a s_j + b s_i + c`. Terms that do not depend on `i` cancel in the softmax. So only `b` matters,
  the result is the same for all `j`, and the C x C matrix is not needed:
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
  """3x3 convolution of a map that has the style of its label at each pixel.

  The map is constant within regions, so the sum over channels is computed once per label and tap,
  and each pixel only adds the values for its nine neighbours. The map itself, `[B, h, w, D]`, is
  never created.

  Args:
    labels: int `[B, h, w]`; pixels with labels outside `0 ... L - 1` have a style of zeros.
    styles: `[B, L, D]`.
    kernel: `[3, 3, D, out]`.
    scale: factor of the result, `[out]`.

  Returns:
    `[B, h, w, out]`.
  """
  taps = jnp.einsum('bld,tdo->btlo', styles, kernel.reshape(9, *kernel.shape[2:])) * scale
  patches = layers.label_patches(labels, styles.shape[1], styles.dtype)
  maps = jnp.einsum('bptl,btlo->bpo', patches, taps)
  return maps.reshape(*labels.shape, kernel.shape[-1])


class ACE(nn.Module):
  """Noise, batch norm, then scale and shift from label map and codes; keeps the shape.

  Attributes:
    features: channels, C.
    num_labels: number of labels, L.
    style_size: length of a code.
    label_width: outputs of the fully connected layer of each label.
    spade_width: channels of SPADE's hidden layer.
    style: whether there is a style branch; without it, only SPADE is used.
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
      # One half of a 1x1 convolution with two channels, which determines its initialisation.
      attention = nn.initializers.normal(0.02 * (2 / 3) ** 0.5)
      self.gsas_weight = self.param('gsas_weight', attention, ())
      init = layers.side_by_side(layers.xavier, 2)
      self.style_kernel = self.param('style_kernel', init, (3, 3, self.label_width, out))
      self.style_bias = self.param('style_bias', nn.initializers.zeros, (out,))
      self.blend_scale = self.param('blend_scale', nn.initializers.zeros, ())
      self.blend_shift = self.param('blend_shift', nn.initializers.zeros, ())

  def layout(self, labels: jax.Array, share: jax.Array | None = None) -> jax.Array:
    """Scales and shifts of SPADE, which depend only on the label map.

    Args:
      labels: int `[B, h, w]`.
      share: factor, `[2 C]`.

    Returns:
      `[B, h, w, 2 C]`.
    """
    hidden = self.spade_shared(layers.one_hot(labels, self.num_labels, self.dtype))
    return self.spade(nn.relu(hidden), scale=share)

  def styles(self, codes: jax.Array) -> jax.Array:
    """Applies the layer of each label to its code, `[B, L, style_size] -> [B, L, width]`."""
    mixed = gsas(codes.astype(jnp.float32), self.gsas_weight)
    # With labels first, as XLA's CPU back end takes four to six times as long for other orders.
    styles = jnp.matmul(mixed.swapaxes(0, 1), self.label_kernel).swapaxes(0, 1)
    return nn.relu(styles + self.label_bias)

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
      noise: `[B, h, w, 1]` from N(0, 1); None: no noise.
      train: whether to use and update batch statistics.
      layout: `layout(labels)`, if it is already computed, `[B or 1, h, w, 2 C]`.
    """
    if noise is not None:
      x = x + (noise * self.noise_scale).astype(x.dtype)
    x = self.norm(x, train)
    scale, shift = jnp.split(self._maps(labels, codes, layout), 2, axis=-1)
    return x * (1 + scale) + shift

  def _maps(self, labels, codes, layout) -> jax.Array:
    """Scales and shifts of both branches, `[B, h, w, 2 C]`.

    Blends kernels and taps instead of maps, because they and their gradients are smaller.
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
