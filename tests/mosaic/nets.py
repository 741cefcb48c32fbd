"""The two networks, and the code of an image."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from step_jax.models.norms import BatchNorm
from step_jax.models.spectral import SpectralNorm

# Bins of the histogram per channel: 8 labels of 512 colours are large enough to be sharded.
BINS = 8


class Code(flax.struct.PyTreeNode):
  """A colour in [-1, 1] per label, `[…, L, 3]`, and whether the label has one, `[…, L]`."""

  colours: Any
  valid: Any

  def interpolate(self, other, share):
    """Interpolates two codes; a colour that only one code has is used unchanged."""
    of_other = np.where(self.valid > 0, np.where(other.valid > 0, share, 0.0), 1.0)[..., None]
    colours = (1 - of_other) * self.colours + of_other * other.colours
    return Code(colours.astype(np.float32), np.maximum(self.valid, other.valid))


def code_of(image, labels, num_labels):
  """Mean colour of every label of an image in [-1, 1] `[B, H, W, 3]`."""
  mask = jax.nn.one_hot(labels, num_labels)
  area = jnp.sum(mask, axis=(1, 2))
  colours = jnp.einsum('bhwl,bhwc->blc', mask, image) / jnp.maximum(area, 1)[..., None]
  return Code(colours, (area > 0).astype(jnp.float32))


def histogram(code):
  """Number of valid colours per bin, `[L, BINS^3]`, summed over the batch."""
  bins = jnp.clip((code.colours + 1) / 2 * BINS, 0, BINS - 1).astype(jnp.int32)
  index = bins[..., 0] * BINS**2 + bins[..., 1] * BINS + bins[..., 2]
  return jnp.einsum('blk,bl->lk', jax.nn.one_hot(index, BINS**3), code.valid)


class Generator(nn.Module):
  """Label maps `[B, H, W]`, codes and noise `[B, H, W, 1]` to images in [-1, 1]."""

  num_labels: int
  width: int

  @nn.compact
  def __call__(self, labels, code, noise, train=False):
    mask = jax.nn.one_hot(labels, self.num_labels)
    painted = jnp.einsum('bhwl,blc->bhwc', mask, code.colours * code.valid[..., None])
    x = jnp.concatenate([mask, painted, noise], axis=-1)
    for _ in range(2):
      x = nn.relu(BatchNorm()(nn.Conv(self.width, (3, 3), use_bias=False)(x), train))
    return nn.tanh(nn.Conv(3, (3, 3))(x) + painted)


class Discriminator(nn.Module):
  """Images and label maps to logits `[B, h, w, 1]`."""

  num_labels: int
  width: int

  @nn.compact
  def __call__(self, image, labels, train=False):
    x = jnp.concatenate([image, jax.nn.one_hot(labels, self.num_labels)], axis=-1)
    for i, (width, stride) in enumerate(((self.width, 2), (self.width, 2), (1, 1))):
      shape = (3, 3, x.shape[-1], width)
      kernel = self.param(f'kernel_{i}', nn.initializers.lecun_normal(), shape)
      kernel = SpectralNorm(name=f'norm_{i}')(kernel, train)
      x = jax.lax.conv_general_dilated(
        nn.leaky_relu(x, 0.2) if i else x,
        kernel,
        (stride, stride),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )
    return x


def of_config(config):
  sizes = config.model.num_labels, config.model.width
  return Generator(*sizes), Discriminator(*sizes)
