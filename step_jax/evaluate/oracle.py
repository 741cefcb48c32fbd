"""Scores of every picture rebuilt in its own style, and restyled."""

from collections.abc import Iterator

import numpy as np

from step_jax.evaluate import lpips, reconstruction, resizing, style
from step_jax.evaluate.scores import Score, Skipped, known_mean, mean_score, stack
from step_jax.evaluate.session import Session, feature_facts

_PICTURES = ('own', 'other', 'target', 'next')
# Pairs of these that LPIPS compares, by what is added to its name.
_PAIRS = {'': ('own', 'target'), '-styles': ('own', 'other'), '-photos': ('target', 'next')}


def measure(session: Session) -> Iterator[Score | Skipped]:
  """Yields the group `reconstruction`, and those of `style` that need translations."""
  values = stack(_rows(session))
  # Where a picture has no other beside it there is one translation only.
  alone = np.isnan(values['psnr_other'])
  score = lambda name, measured, *args, **facts: mean_score(
    session.protocol(name, *args, **facts), measured
  )
  yield from (score(f'{name}/uint8', values[name]) for name in ('psnr', 'ssim', 'l1'))
  net, weights = {'net': session.net}, feature_facts(session.features)
  taps = ', '.join(f'{tap} * {weight:.6g}' for tap, weight in session.tap_weights.items())
  yield score('perceptual-{net}/native', values['perceptual'], net, taps=taps, **weights)
  yield score('psnr-other-style/uint8', values['psnr_other'])
  yield score(
    'style-code-error/relative',
    values['code_error'] / (style.mean_code_distance(values['z']) or np.nan),
  )
  yield score(
    'content-distance-{net}/relative',
    values['content'] / (known_mean(values['content_photos']) or np.nan),
    net,
    taps=', '.join(session.features.module.taps),
    **weights,
  )
  for item in session.learned:
    for suffix in _PAIRS:
      measured = np.where(alone & bool(suffix), np.nan, values[f'{item.name}{suffix}'])
      name = {'lpips': item.name}
      yield score(f'{{lpips}}{suffix}/256', measured, name, weights=item.weights)
  if not session.learned:
    yield Skipped('LPIPS', lpips.MISSING)


def _rows(session: Session) -> Iterator[dict[str, np.ndarray]]:
  """Codes and scores of every picture, in order."""
  encoder, generator, module = session.encoder, session.generator, session.features.module

  def rebuild(params, feature_params, batch):
    made = reconstruction.rebuild(encoder, generator, params, batch)
    scores = reconstruction.score(module, session.tap_weights, feature_params, made, batch['mask'])
    return {name: made[name] for name in ('z', *_PICTURES)} | scores

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
