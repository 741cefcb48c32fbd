"""Scores of every picture rebuilt in its own style, and restyled."""

from collections.abc import Iterator, Mapping

import numpy as np

from step_jax.evaluate import lpips, resizing
from step_jax.evaluate.scores import Score, Skipped, known_mean, mean_score, stack
from step_jax.evaluate.session import feature_facts
from step_jax.methods.step.scores import reconstruction, style
from step_jax.methods.step.scores.session import StepSession as Session

_PICTURES = ('own', 'other', 'target', 'next')
# Pairs of these that LPIPS compares, by what is added to its name.
_PAIRS = {'': ('own', 'target'), '-styles': ('own', 'other'), '-photos': ('target', 'next')}


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
  for item in session.learned:
    name = {'lpips': item.name}
    yield _mean(session, '{lpips}/256', values[item.name], name, weights=item.weights)
  if not session.learned:
    yield Skipped('LPIPS', lpips.MISSING)
  if session.styled:
    yield from _style(session, values)


def _style(session: Session, values: Mapping[str, np.ndarray]) -> Iterator[Score]:
  """Those of the group `style` that need translations."""
  # Where a picture has no other beside it there is one translation only.
  alone = np.isnan(values['psnr_other'])
  yield _mean(session, 'psnr-other-style/uint8', values['psnr_other'])
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
  for item in session.learned:
    for suffix in ('-styles', '-photos'):
      measured = np.where(alone, np.nan, values[f'{item.name}{suffix}'])
      name = {'lpips': item.name}
      yield _mean(session, f'{{lpips}}{suffix}/256', measured, name, weights=item.weights)


def _mean(session: Session, protocol: str, values: np.ndarray, *args, **facts: str) -> Score:
  return mean_score(session.protocol(protocol, *args, **facts), values)


def _rows(session: Session) -> Iterator[dict[str, np.ndarray]]:
  """Codes and scores of every picture, in order."""
  encoder, generator, module = session.encoder, session.generator, session.features.module
  kept = ('z', *_PICTURES) if session.learned else ('z',)

  def rebuild(params, feature_params, batch):
    rebuilt = reconstruction.rebuild(encoder, generator, params, batch)
    distance = module, session.tap_weights, feature_params
    scores = reconstruction.score(*distance, rebuilt, batch['mask'])
    # Pictures, which are many and of all sizes, are for LPIPS alone.
    return {name: rebuilt[name] for name in kept} | scores

  def compare(lpips_params, batch):
    distances = {}
    for item in session.learned:
      params = lpips_params[item.name]
      seen = {name: item.features(params, batch[name]) for name in _PICTURES}
      for suffix, (x, y) in _PAIRS.items():
        distances[f'{item.name}{suffix}'] = item.compare(params, seen[x], seen[y])
    # What is known of a picture already goes along with it.
    return {name: value for name, value in batch.items() if name not in _PICTURES} | distances

  feature_params = session.put(session.features.params)
  rows = session.stream(rebuild, (session.params, feature_params), session.pictures(session.split))
  if not session.learned:
    return rows
  lpips_params = session.put({item.name: item.params for item in session.learned})
  return session.stream(compare, (lpips_params,), map(_resize, rows))


def _resize(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  return row | {name: resizing.resize_for_lpips(row[name]) for name in _PICTURES}
