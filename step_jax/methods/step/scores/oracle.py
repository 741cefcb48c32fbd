"""Scores of images reconstructed in their own style, and in the style of another image."""

from collections.abc import Iterator, Mapping

import numpy as np

from step_jax.evaluate import restyled
from step_jax.evaluate.scores import Score, Skipped, known_mean, mean_score, stack
from step_jax.evaluate.session import feature_facts
from step_jax.methods.step.scores import reconstruction, style
from step_jax.methods.step.scores.session import StepSession as Session


def measure(session: Session) -> Iterator[Score | Skipped]:
  """Yields the group `reconstruction`, and those of `style` that need translations."""
  values = stack(_rows(session))
  yield from (_mean(session, f'{name}/uint8', values[name]) for name in ('psnr', 'ssim', 'l1'))
  yield _mean(
    session,
    'perceptual-{net}/native',
    values['perceptual'],
    {'net': session.net},
    taps=', '.join(f'{tap} * {weight:.6g}' for tap, weight in session.tap_weights.items()),
    **feature_facts(session.features),
  )
  yield from restyled.rebuilt_scores(session, values)
  if session.styled:
    yield from _style(session, values)


def _style(session: Session, values: Mapping[str, np.ndarray]) -> Iterator[Score]:
  """Yields the scores of the group `style` that need translations."""
  yield _mean(
    session,
    'style-code-error/relative',
    values['code_error'] / (style.mean_code_distance(values['z']) or np.nan),
  )
  yield _mean(
    session,
    'content-distance-{net}/relative',
    values['content'] / (known_mean(values['content_photos']) or np.nan),
    {'net': session.net},
    taps=', '.join(session.features.module.taps),
    **feature_facts(session.features),
  )
  yield from restyled.style_scores(session, values)


def _mean(session: Session, protocol: str, values: np.ndarray, *args, **facts: str) -> Score:
  return mean_score(session.protocol(protocol, *args, **facts), values)


def _rows(session: Session) -> Iterator[dict[str, np.ndarray]]:
  """Codes and scores of each image, in order."""
  encoder, generator, module = session.encoder, session.generator, session.features.module

  def rebuild(params, feature_params, batch):
    rebuilt = reconstruction.rebuild(encoder, generator, params, batch)
    distance = module, session.tap_weights, feature_params
    scores = reconstruction.score(*distance, rebuilt, batch['mask'])
    return {name: rebuilt[name] for name in ('z', *restyled.IMAGES)} | scores

  feature_params = session.put(session.features.params)
  rows = session.stream(rebuild, (session.params, feature_params), session.pictures(session.split))
  return restyled.with_lpips(session, rows)
