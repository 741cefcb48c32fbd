"""Training diagnostics: style usage and GAN balance, at every evaluation during training.

They are for monitoring a run. To compare runs, use the scores of `protocols`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import images, losses, models
from step_jax.evaluate import metrics
from step_jax.evaluate.scores import known_mean
from step_jax.methods.step import models as nets
from step_jax.methods.step import samplers

# Thresholds of `warnings`.
_LEAST_DIVERSITY = 0.03
_LEAST_DIMENSIONS = 1.2
_LEAST_DEVIATION = 1e-3
# Share of the distance of the logits of a certain discriminator.
_MOST_LEAD = 0.8


def draw_like(codes: np.ndarray, seed: int) -> np.ndarray:
  """Samples as many codes `[N, Z]` as given, from a Gaussian fitted to them."""
  return samplers.gaussian(codes).draw(len(codes), seed)


def compare_styles(
  features: models.FeatureNet,
  tap_weights: Mapping[str, float],
  feature_params: Mapping,
  rebuilt: Mapping[str, jax.Array],
  mask: jax.Array,
) -> dict[str, jax.Array]:
  """Differences between two styles of one input, float32 `[B]` each.

  `styles` and `photos` are perceptual distances of the two translations and of two targets.
  `change` is the mean absolute difference of the translations, on a scale of 0 to 1, and
  `code_change` the distance of their codes. NaN if a batch has only one image.

  Args:
    features, tap_weights, feature_params: feature network.
    rebuilt: output of `reconstruction.rebuild`.
    mask: `[B]`, 0 for copies that fill the batch, otherwise 1.
  """
  taps = {
    name: features.apply({'params': feature_params}, images.to_float(rebuilt[name]))
    for name in ('own', 'other', 'target', 'next')
  }
  values = {
    'styles': losses.perceptual_distance(taps['own'], taps['other'], tap_weights),
    'photos': losses.perceptual_distance(taps['target'], taps['next'], tap_weights),
    'change': metrics.l1(rebuilt['own'], rebuilt['other']),
    'code_change': jnp.linalg.norm(rebuilt['z'] - rebuilt['z_other'], axis=1),
  }
  alone = jnp.sum(mask) < 2
  return {name: jnp.where(alone, jnp.nan, value) for name, value in values.items()}


def judge(
  discriminator: nets.MultiScaleDiscriminator,
  params: Mapping,
  source: jax.Array,
  pictures: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
  """Mean logits of a discriminator: name of an image -> float32 `[B]`.

  Args:
    discriminator, params: the module and its parameters.
    source: uint8 `[B, H, W, 3]`.
    pictures: name -> uint8 `[B, H, W, 3]`.
  """

  def logit(picture):
    scales = discriminator.apply(
      {'params': params}, images.to_float(picture), images.to_float(source)
    )
    return sum(jnp.mean(scale, axis=(1, 2, 3)) for scale in scales) / len(scales)

  return {name: logit(picture) for name, picture in pictures.items()}


def summarize(values: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Metrics for the log, from values of all images `[N]` and their codes `z` `[N, Z]`.

  - `diversity`: distance of two styles of one input, relative to that of two true images;
  - `sensitivity`: change of the output on a scale of 0 to 1, per unit change of the code;
  - `code_dimensions`: number of dimensions that codes use, 1 to Z: the participation ratio of the
    covariance, (sum of eigenvalues)^2 / sum of their squares;
  - `code_deviation/i`: standard deviation of dimension i;
  - `judged_real`, `judged_encoded`, `judged_drawn`: mean logit of the discriminator on true images,
    on outputs in the style of an image, and on outputs in a sampled style.
  """
  summary = {}
  z = np.asarray(values['z'], np.float64)
  if z.shape[1] and len(z) > 1:
    summary['diversity'] = _ratio(values['styles'], values['photos'])
    summary['sensitivity'] = _ratio(values['change'], values['code_change'])
    eigenvalues = np.linalg.eigvalsh(samplers.covariance(z))
    squares = np.square(eigenvalues).sum()
    summary['code_dimensions'] = float(eigenvalues.sum() ** 2 / squares) if squares else 0.0
    summary |= {f'code_deviation/{i}': float(d) for i, d in enumerate(z.std(axis=0))}
  judged = ('judged_real', 'judged_encoded', 'judged_drawn')
  summary |= {name: known_mean(values[name]) for name in judged if name in values}
  return {name: value for name, value in summary.items() if np.isfinite(value)}


def warnings(summary: Mapping[str, float], certain: float = 1.0) -> list[str]:
  """Warnings about the output of `summarize`, one line each, with what to do.

  Args:
    summary: output of `summarize`.
    certain: see `losses.Adversarial`.
  """
  deviations = [value for name, value in summary.items() if name.startswith('code_deviation/')]
  lines = []
  if deviations and max(deviations) < _LEAST_DEVIATION:
    lines.append(
      f'the style encoder has collapsed: no dimension of the codes deviates by more than '
      f'{max(deviations):.1g}; pre-train it longer, or lower loss.z_l2 and loss.z_kl'
    )
  elif summary.get('code_dimensions', np.inf) < _LEAST_DIMENSIONS:
    lines.append(
      f'the style encoder has all but collapsed: codes vary along {summary["code_dimensions"]:.1f} '
      'dimensions; pre-train it longer, or lower loss.z_l2 and loss.z_kl'
    )
  if summary.get('diversity', np.inf) < _LEAST_DIVERSITY:
    lines.append(
      f'the generator ignores the style (mode collapse): two styles differ by '
      f'{summary["diversity"]:.1%} of the distance between two images; train longer, fine-tune, '
      'or raise loss.recon_l1'
    )
  lead = summary.get('judged_real', 0.0) - summary.get('judged_encoded', 0.0)
  if lead > _MOST_LEAD * certain:
    lines.append(
      f'the discriminator wins: its logits are {lead:.2f} apart ({certain:g} is certain); lower '
      'optimizer.discriminator_lr'
    )
  return lines


def _ratio(values: np.ndarray, scale: np.ndarray) -> float:
  mean_scale = known_mean(scale)
  return known_mean(values) / mean_scale if mean_scale else float('nan')
