"""Scores of images in their own style, and restyled with that of the next image."""

from collections.abc import Iterator, Mapping

import numpy as np

from step_jax.evaluate import resizing
from step_jax.evaluate.scores import Score, mean_score
from step_jax.evaluate.session import Session

# An image in its own style and in that of the next image, the image itself, and the next image.
IMAGES = ('own', 'other', 'target', 'next')
# Suffix of the name of the score -> pair that is compared.
_PAIRS = {'': ('own', 'target'), '-styles': ('own', 'other'), '-photos': ('target', 'next')}

Rows = Iterator[dict[str, np.ndarray]]


def with_lpips(session: Session, rows: Rows) -> Rows:
  """Replaces the `IMAGES` of each row by the LPIPS of the pairs."""

  def compare(lpips_params, batch):
    distances = {}
    for item in session.learned:
      params = lpips_params[item.name]
      seen = {name: item.features(params, batch[name]) for name in IMAGES}
      for suffix, (x, y) in _PAIRS.items():
        distances[f'{item.name}{suffix}'] = item.compare(params, seen[x], seen[y])
    # Other values of the row are kept.
    return {name: value for name, value in batch.items() if name not in IMAGES} | distances

  lpips_params = session.put({item.name: item.params for item in session.learned})
  resize = lambda row: row | {name: resizing.resize_for_lpips(row[name]) for name in IMAGES}
  return session.stream(compare, (lpips_params,), map(resize, rows))


def rebuilt_scores(session: Session, values: Mapping[str, np.ndarray]) -> Iterator[Score]:
  """Scores for images in their own style, from the output of `with_lpips`."""
  yield from _scores(session, values, [''])


def style_scores(session: Session, values: Mapping[str, np.ndarray]) -> Iterator[Score]:
  """Scores between two styles of an image, and between images, if `psnr_other` is not NaN."""
  alone = np.isnan(values['psnr_other'])
  paired = {name: np.where(alone, np.nan, value) for name, value in values.items() if '-' in name}
  yield from psnr_scores(session, values['psnr'], values['psnr_other'])
  yield from _scores(session, paired, ['-styles', '-photos'])


def psnr_scores(session: Session, own: np.ndarray, other: np.ndarray) -> Iterator[Score]:
  """Scores of PSNR `[N]` in another style (NaN if there is none), and of how far `own` leads."""
  yield mean_score(session.protocol('psnr-other-style/uint8'), other)
  yield mean_score(session.protocol('psnr-lead/uint8'), own - other)


def _scores(session, values, suffixes):
  for item in session.learned:
    for suffix in suffixes:
      protocol = f'{{lpips}}{suffix}/256', {'lpips': item.name}
      yield mean_score(
        session.protocol(*protocol, weights=item.weights), values[f'{item.name}{suffix}']
      )
