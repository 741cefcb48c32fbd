"""How well pictures are rebuilt from their own style, and whether style matters at all.

The first is the oracle test of StEP (sec. 4.2). For the second every source is also translated in
the style of another picture: that must be a worse reconstruction, and look different.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from step_jax import images, losses, models
from step_jax.evaluate import metrics
from step_jax.evaluate.lpips import Lpips
from step_jax.infer import functions


def make_score(
  encoder: models.StyleEncoder,
  generator: models.Generator,
  features: models.FeatureNet,
  tap_weights: Mapping[str, float],
  learned: Sequence[Lpips] = (),
) -> Callable[[Mapping, Mapping, Mapping], dict[str, jax.Array]]:
  """A compiled function that rebuilds a batch of pictures and scores the results.

  All pictures are scored as they would be saved, in uint8. `psnr`, `l1`, `perceptual` and LPIPS by
  its names compare the translation in a picture's own style with the picture; `psnr_other` that in
  the style of the batch's next picture. `styles/NAME` is the LPIPS between these two translations,
  `photos/NAME` that between the two pictures themselves, the scale to see it on.

  Args:
    encoder, generator, features: the modules.
    tap_weights: of the perceptual distance.
    learned: LPIPS to score with.

  Returns:
    `(params, frozen, batch) -> {score: float32 [B]}`, where `frozen` is `{'features': …}` plus the
    parameters of each LPIPS by its name, and batch `{'source', 'target', 'mask'}`. Scores that need
    a second picture are NaN in a batch that has only one.
  """

  @jax.jit
  def score(params: Any, frozen: Mapping, batch: Mapping) -> dict[str, jax.Array]:
    source, target = batch['source'], batch['target']
    z = functions.encode(encoder, params, target)
    following = lambda x: jnp.roll(x, -1, axis=0)
    own = functions.generate(generator, params, source, z)
    other = functions.generate(generator, params, source, following(z))
    taps = [
      features.apply({'params': frozen['features']}, images.to_float(x)) for x in (own, target)
    ]
    scores = {
      'psnr': metrics.psnr(own, target),
      'l1': metrics.l1(own, target),
      'perceptual': losses.perceptual_distance(*taps, tap_weights),
    }
    alone = jnp.sum(batch['mask']) < 2
    pairs = {'psnr_other': metrics.psnr(other, target)}
    for lpips in learned:
      distance = lambda x, y, lpips=lpips: lpips.distance(frozen[lpips.name], x, y)
      scores[lpips.name] = distance(own, target)
      pairs[f'styles/{lpips.name}'] = distance(own, other)
      pairs[f'photos/{lpips.name}'] = distance(target, following(target))
    return scores | {name: jnp.where(alone, jnp.nan, value) for name, value in pairs.items()}

  return score
