"""Distances between images in the feature space of a frozen network."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

FEATURE_SCALE = 0.1
LPIPS_EPSILON = 1e-10


def perceptual_loss(
  x: Mapping[str, jax.Array], y: Mapping[str, jax.Array], weights: Mapping[str, float]
) -> jax.Array:
  """Weighted squared distance of features: `sum_tap w_tap * mean((0.1 * (x_tap - y_tap))^2)`.

  StEP's reconstruction loss (after Johnson et al. 2016): VGG16 `conv{1..5}_2` with weights 1/32,
  1/16, 1/8, 1/4, 1.

  Args:
    x, y: tap -> features `[B, H, W, C]`.
    weights: tap -> weight; other taps are ignored.

  Returns:
    float32 scalar, at least 0.
  """
  return jnp.mean(perceptual_distance(x, y, weights))


def perceptual_distance(
  x: Mapping[str, jax.Array], y: Mapping[str, jax.Array], weights: Mapping[str, float]
) -> jax.Array:
  """`perceptual_loss` of each image of a batch, float32 `[B]`."""

  def distance(tap):
    difference = FEATURE_SCALE * (x[tap].astype(jnp.float32) - y[tap].astype(jnp.float32))
    return jnp.mean(jnp.square(difference), axis=(1, 2, 3))

  return sum(weight * distance(tap) for tap, weight in weights.items())


def perceptual_l1(
  x: Mapping[str, jax.Array], y: Mapping[str, jax.Array], weights: Mapping[str, float]
) -> jax.Array:
  """Weighted absolute distance of features: `sum_tap w_tap * mean|x_tap - y_tap|`.

  `y` is the target: no gradient flows to it.
  Used with VGG19 `conv{1..5}_1` and weights 1/32, 1/16, 1/8, 1/4, 1 (Wang et al. 2018).

  Args:
    x, y: tap -> features `[B, H, W, C]`.
    weights: tap -> weight; other taps are ignored.

  Returns:
    float32 scalar, at least 0.
  """

  def distance(tap):
    target = jax.lax.stop_gradient(y[tap]).astype(jnp.float32)
    return jnp.mean(jnp.abs(x[tap].astype(jnp.float32) - target))

  return sum(weight * distance(tap) for tap, weight in weights.items())


def lpips(
  x: Mapping[str, jax.Array], y: Mapping[str, jax.Array], heads: Mapping[str, jax.Array]
) -> jax.Array:
  """Learned perceptual distance of images (Zhang et al. 2018, eq. 1).

  Args:
    x, y: tap -> features `[B, H, W, C]` of the network that the heads were fitted to.
    heads: tap -> non-negative channel weights `[C]`.

  Returns:
    float32 `[B]`, at least 0: `sum_tap mean_hw(w . (x / |x| - y / |y|)^2)`.
  """
  return sum(
    jnp.mean(jnp.square(_unit(x[tap]) - _unit(y[tap])) @ weight, axis=(1, 2))
    for tap, weight in heads.items()
  )


def lpips_vector(x: Mapping[str, jax.Array], heads: Mapping[str, jax.Array]) -> jax.Array:
  """Packs features so that `lpips` becomes a squared Euclidean distance.

  Args:
    x: tap -> features `[B, H, W, C]`.
    heads: tap -> non-negative channel weights `[C]`.

  Returns:
    float32 `[B, sum of H W C]`, with `|lpips_vector(x) - lpips_vector(y)|^2 = lpips(x, y)`.
  """
  packed = []
  for tap, weight in heads.items():
    batch, height, width, _ = x[tap].shape
    scaled = _unit(x[tap]) * jnp.sqrt(weight / (height * width))
    packed.append(scaled.reshape(batch, -1))
  return jnp.concatenate(packed, axis=1)


def _unit(features: jax.Array) -> jax.Array:
  features = features.astype(jnp.float32)
  norm = jnp.sqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True))
  return features / (norm + LPIPS_EPSILON)
