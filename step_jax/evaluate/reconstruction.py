"""How well pictures are rebuilt from their own style: the oracle test of StEP (sec. 4.2)."""

from collections.abc import Callable, Mapping

import jax

from step_jax import images, losses, models
from step_jax.evaluate import metrics
from step_jax.infer import functions


def make_score(
  encoder: models.StyleEncoder,
  generator: models.Generator,
  features: models.FeatureNet,
  tap_weights: Mapping[str, float],
) -> Callable[..., tuple[dict[str, jax.Array], jax.Array]]:
  """A compiled function that rebuilds a batch of pictures and scores the result.

  Returns:
    `(params, feature_params, batch) -> (scores, outputs)`: batch is `{'source', 'target'}`, uint8
    `[B, H, W, 3]`; scores are float32 `[B]` each, of the pictures as they would be saved (uint8);
    outputs are uint8.
  """

  @jax.jit
  def score(params, feature_params, batch):
    target = batch['target']
    z = functions.encode(encoder, params, target)
    output = functions.generate(generator, params, batch['source'], z)
    taps = [
      features.apply({'params': feature_params}, images.to_float(x)) for x in (output, target)
    ]
    scores = {
      'psnr': metrics.psnr(output, target),
      'l1': metrics.l1(output, target),
      'perceptual': losses.perceptual_distance(*taps, tap_weights),
    }
    return scores, output

  return score
