"""Reconstruction of images from their own style and from another style, with scores.

The first is the oracle test of StEP (sec. 4.2). For the second, every source is also translated
into the style of the next image of its batch: this must be a worse reconstruction, look different,
keep the content, and have the other style. All functions here are pure and process one batch.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from step_jax import images, losses, models
from step_jax.evaluate import metrics
from step_jax.methods.step import functions
from step_jax.methods.step import models as nets


def rebuild(
  encoder: nets.StyleEncoder,
  generator: nets.Generator,
  params: Mapping,
  batch: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
  """Translates each source into its own style and into that of the next image of the batch.

  Args:
    encoder, generator: the modules.
    params: network -> parameters.
    batch: `{'source', 'target'}`, uint8 `[B, H, W, 3]`.

  Returns:
    Codes `[B, Z]`: `z` of the targets, `z_other` of the next targets, `z_back` of `other`; and
    images uint8 `[B, H, W, 3]`: the translations `own` and `other`, the targets `target` and the
    next targets `next`.
  """
  z = functions.encode(encoder, params, batch['target'])
  z_other = jnp.roll(z, -1, axis=0)
  own = functions.generate(generator, params, batch['source'], z)
  other = functions.generate(generator, params, batch['source'], z_other)
  z_back = functions.encode(encoder, params, other)
  codes = {'z': z, 'z_other': z_other, 'z_back': z_back}
  following = jnp.roll(batch['target'], -1, axis=0)
  return codes | {'own': own, 'other': other, 'target': batch['target'], 'next': following}


def score(
  features: models.FeatureNet,
  tap_weights: Mapping[str, float],
  feature_params: Mapping,
  rebuilt: Mapping[str, jax.Array],
  mask: jax.Array,
) -> dict[str, jax.Array]:
  """Scores of the images from `rebuild` as they would be saved, float32 `[B]` each.

  `psnr`, `ssim`, `l1`, `perceptual` compare `own` with the target, `psnr_other` compares `other`
  with it. `content` is the distance of the content of `own` and `other`, `content_photos` that of
  two targets; `code_error` is the Euclidean distance of `z_back` and `z_other`. Scores that need
  another image are NaN if a batch has only one.

  Args:
    features, tap_weights, feature_params: feature network; content is compared at its middle tap.
    rebuilt: output of `rebuild`.
    mask: `[B]`, 0 for copies that fill the batch, otherwise 1.
  """
  own, other, target = rebuilt['own'], rebuilt['other'], rebuilt['target']
  with jax.default_matmul_precision('highest'):
    taps = {
      name: features.apply({'params': feature_params}, images.to_float(rebuilt[name]))
      for name in ('own', 'other', 'target')
    }
  middle = features.taps[len(features.taps) // 2]
  seen = {name: activations[middle] for name, activations in taps.items()}
  scores = {
    'psnr': metrics.psnr(own, target),
    'ssim': metrics.ssim(own, target),
    'l1': metrics.l1(own, target),
    'perceptual': losses.perceptual_distance(taps['own'], taps['target'], tap_weights),
  }
  pairs = {
    'psnr_other': metrics.psnr(other, target),
    'content': metrics.content_distance(seen['own'], seen['other']),
    'content_photos': metrics.content_distance(
      seen['target'], jnp.roll(seen['target'], -1, axis=0)
    ),
    'code_error': jnp.linalg.norm(rebuilt['z_back'] - rebuilt['z_other'], axis=1),
  }
  alone = jnp.sum(mask) < 2
  return scores | {name: jnp.where(alone, jnp.nan, value) for name, value in pairs.items()}
