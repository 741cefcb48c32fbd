"""Loss terms of pSp (Richardson et al. 2021, sec. 3.2) that are not in `step_jax.losses`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from step_jax.methods.psp import resizing
from step_jax.methods.psp.irse import FACE_SIZE

# Size at which faces are cropped, px.
SIZE = 256
# Rows and columns of the face in an aligned image of that size.
FACE_ROWS, FACE_COLUMNS = slice(35, 223), slice(32, 220)
MOCO_SIZE = 224
_NORM_EPSILON = 1e-12

Embed = Callable[[jax.Array], jax.Array]


def face_crop(images: jax.Array) -> jax.Array:
  """The inner part of aligned faces at 256 px, `[B, H, W, C] -> [B, 188, 188, C]`."""
  return resizing.adaptive_pool(images, SIZE)[:, FACE_ROWS, FACE_COLUMNS]


def identity_features(embed: Embed, images: jax.Array) -> jax.Array:
  """Unit vectors of the identities of aligned faces, `[B, H, W, 3] -> [B, D]`.

  Args:
    embed: `[B, 112, 112, 3]` to unit vectors; see `irse.FaceEmbedding`.
    images: in [-1, 1].
  """
  return embed(resizing.adaptive_pool(face_crop(images), FACE_SIZE))


def moco_features(embed: Embed, images: jax.Array) -> jax.Array:
  """Unit vectors of a self-supervised ResNet-50, `[B, H, W, 3] -> [B, D]`; any domain.

  Args:
    embed: `[B, 224, 224, 3]` to `[B, D]`; see `resnet.ResNet50`.
    images: in [-1, 1], without further normalisation, as in the reference.
  """
  features = embed(resizing.nearest(images, MOCO_SIZE))
  norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
  return features / jnp.maximum(norm, _NORM_EPSILON)


def similarity_loss(output: jax.Array, target: jax.Array) -> jax.Array:
  """`mean(1 - <output, target>)` of unit vectors `[B, D]`, a scalar; no gradient to the target."""
  return jnp.mean(1 - cosine(output, jax.lax.stop_gradient(target)))


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
  """Inner products of unit vectors, `[B, D], [B, D] -> [B]`."""
  return jnp.sum(a * b, axis=-1)


def squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
  """Mean squared difference of images of one shape, a scalar."""
  return jnp.mean(jnp.square(output - target))


def w_norm(styles: jax.Array, mean: jax.Array | float = 0.0) -> jax.Array:
  """Mean distance of styles from the mean style, not squared.

  Args:
    styles: `[B, n, D]`, or `[B, D]`.
    mean: the mean style, which broadcasts; 0 if encoders do not start from it.

  Returns:
    A scalar, the mean over the batch of the norm over all layers.
  """
  offset = (styles - mean).reshape(styles.shape[0], -1)
  return jnp.mean(jnp.linalg.norm(offset, axis=1))


def masked_l1(output: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean absolute difference where a mask is set.

  Args:
    output, target: `[B, H, W, C]`.
    mask: `[B, H, W, 1]`, weights of the pixels in [0, 1].

  Returns:
    A scalar; 0 if the mask is empty.
  """
  total = jnp.sum(mask) * output.shape[-1]
  return jnp.sum(mask * jnp.abs(output - target)) / jnp.maximum(total, 1.0)
