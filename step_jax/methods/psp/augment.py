"""Differentiable augmentation of the discriminator's images (Zhao et al. 2020, DiffAugment)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

# Maximum shift, and side of the square that is set to zero, relative to the side of the image.
_SHIFT = 1 / 8
_CUTOUT = 1 / 2


def augment(key: jax.Array, images: jax.Array, policy: Sequence[str]) -> jax.Array:
  """Augments each image independently; first and second derivatives are supported.

  Args:
    key: random key.
    images: `[B, H, W, 3]` in [-1, 1].
    policy: keys of `POLICIES`, applied in this order; empty: images are unchanged.
  """
  for name, own in zip(policy, jax.random.split(key, max(len(policy), 1)), strict=False):
    images = POLICIES[name](own, images)
  return images


def _color(key, images):
  keys = jax.random.split(key, 3)
  shape = (len(images), 1, 1, 1)
  brightness, saturation, contrast = (jax.random.uniform(k, shape) for k in keys)
  images = images + (brightness - 0.5)
  grey = jnp.mean(images, axis=3, keepdims=True)
  images = grey + (images - grey) * (2 * saturation)
  mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
  return mean + (images - mean) * (contrast + 0.5)


def _translation(key, images):
  height, width = images.shape[1:3]
  margins = [round(side * _SHIFT) for side in (height, width)]
  padded = jnp.pad(images, ((0, 0), *((m, m) for m in margins), (0, 0)))
  keys = jax.random.split(key)
  tops, lefts = (
    jax.random.randint(k, (len(images),), 0, 2 * m + 1) for k, m in zip(keys, margins, strict=True)
  )
  cut = lambda image, top, left: jax.lax.dynamic_slice(
    image, (top, left, 0), (height, width, image.shape[2])
  )
  return jax.vmap(cut)(padded, tops, lefts)


def _cutout(key, images):
  inside = []
  for k, side in zip(jax.random.split(key), images.shape[1:3], strict=True):
    hole = round(side * _CUTOUT)
    start = jax.random.randint(k, (len(images), 1), 0, side + 1) - hole // 2
    place = jnp.arange(side)
    inside.append((place >= start) & (place < start + hole))
  hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
  return jnp.where(hole, 0.0, images)


POLICIES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  'color': _color,
  'translation': _translation,
  'cutout': _cutout,
}
