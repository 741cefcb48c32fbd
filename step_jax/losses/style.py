"""Style as second-order statistics of features (Gatys et al. 2016), and distances for mining."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

# Weights of feature taps in the style distance.
TAP_WEIGHTS = ('equal', 'squared_channels')


def gram_matrix(features: jax.Array) -> jax.Array:
  """Gram matrices of feature maps, `[B, H, W, C] -> [B, C, C]`: `F^T F / (C * H * W)`.

  Gatys et al. (2016), eq. 3.
  """
  batch, height, width, channels = features.shape
  flat = features.astype(jnp.float32).reshape(batch, height * width, channels)
  gram = jnp.einsum('bpi,bpj->bij', flat, flat, precision=jax.lax.Precision.HIGHEST)
  return gram / (channels * height * width)


def style_distance(
  x: Mapping[str, jax.Array], y: Mapping[str, jax.Array], tap_weights: str = 'equal'
) -> jax.Array:
  """Style distance of images: mean squared difference of Gram matrices, summed over taps.

  With `equal` weights, the taps with the largest Gram entries dominate, as in the released code of
  StEP. The paper cites Gatys et al. (2016), eq. 4, which divides the squared differences of
  unnormalised Gram matrices by `4 C^2 (H W)^2`: our mean times `C^2 / 4`, `squared_channels` here,
  up to a factor that is the same for all taps.

  Args:
    x, y: tap -> Gram matrices `[B, C, C]`, the same taps in both; leading axes broadcast.
    tap_weights: one of `TAP_WEIGHTS`.

  Returns:
    float32 `[B]`, at least 0.
  """
  return sum(
    _tap_weight(x[tap], tap_weights) * jnp.mean(jnp.square(x[tap] - y[tap]), axis=(-2, -1))
    for tap in x
  )


def _tap_weight(gram: jax.Array, tap_weights: str) -> float:
  """Weight of a tap in the style distance, 1 for 64 channels."""
  return (gram.shape[-1] / 64) ** 2 if tap_weights == 'squared_channels' else 1.0


def style_vector(grams: Mapping[str, jax.Array], tap_weights: str = 'equal') -> jax.Array:
  """Packs Gram matrices so that `style_distance` becomes a squared Euclidean distance.

  A Gram matrix is symmetric, so the upper triangle is enough; off-diagonal entries count twice.

  Args:
    grams: tap -> `[B, C, C]`.
    tap_weights: one of `TAP_WEIGHTS`.

  Returns:
    float32 `[B, sum of C (C + 1) / 2]`, with `|style_vector(x) - style_vector(y)|^2 =
    style_distance(x, y)`.
  """
  packed = []
  for gram in grams.values():
    channels = gram.shape[-1]
    rows, columns = jnp.triu_indices(channels)
    weight = jnp.where(rows == columns, 1.0, jnp.sqrt(2.0)) / channels
    weight *= _tap_weight(gram, tap_weights) ** 0.5
    packed.append(gram[:, rows, columns] * weight)
  return jnp.concatenate(packed, axis=-1)
