"""Reconstruction of images from their own code, and from that of another image, for any method."""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from step_jax.evaluate import metrics, resizing, restyled, scores
from step_jax.evaluate.scores import Score, Skipped, mean_score
from step_jax.evaluate.session import BATCH, Session

# Definition for methods without codes.
WITHOUT_CODE = 'every source translated as it is, against its target'
_METRICS = {'psnr': metrics.psnr, 'ssim': metrics.ssim, 'l1': metrics.l1}


def measure(session: Session) -> Iterator[Score | Skipped]:
  """Yields the group `reconstruction`, and PSNR in another style of the group `style`."""
  codes = session.codes(session.split) if session.method.needs_code else None
  facts = {} if session.method.needs_code else {'pictures': WITHOUT_CODE}
  values = _compare(session, codes, range(session.count))
  for name in _METRICS:
    yield mean_score(session.protocol(f'{name}/uint8', **facts), values[name])
  for item in session.learned:
    protocol = session.protocol('{lpips}/256', {'lpips': item.name}, weights=item.weights, **facts)
    yield mean_score(protocol, values[item.name])
  if codes is None or not session.styled:
    return
  sizes = [e['target'].shape for e in session.pictures(session.split, roles=('target',))]
  others = following(sizes)
  alone = others == np.arange(len(others))
  other = np.where(alone, np.nan, _compare(session, codes, others)['psnr'])
  yield from restyled.psnr_scores(session, values['psnr'], other)


def following(sizes: Sequence[tuple]) -> np.ndarray:
  """Index of the next image in the batch, cyclically; batches have up to `BATCH` images.

  Args:
    sizes: sizes of the images, in order; the images of a batch have the same size.

  Returns:
    Indices `[N]`; an image that is alone in its batch has its own index.
  """
  following_ = np.arange(len(sizes))
  for size in set(sizes):
    of_size = np.array([i for i, other in enumerate(sizes) if other == size])
    for start in range(0, len(of_size), BATCH):
      batch = of_size[start : start + BATCH]
      following_[batch] = np.roll(batch, -1)
  return following_


def _compare(session: Session, codes, chosen: Sequence[int]) -> dict[str, np.ndarray]:
  """Scores `[N]` of every source translated with the chosen code, against its own target."""

  def score(lpips_params, batch):
    scores = {name: metric(batch['made'], batch['target']) for name, metric in _METRICS.items()}
    for item in session.learned:
      params = lpips_params[item.name]
      seen = [item.features(params, batch[f'{name}_256']) for name in ('made', 'target')]
      scores[item.name] = item.compare(params, *seen)
    return {name: jnp.asarray(value) for name, value in scores.items()}

  def examples():
    sources = (
      {**example, 'code': None if codes is None else scores.at(codes, i)}
      for i, example in zip(chosen, session.sources(), strict=True)
    )
    targets = (e['target'] for e in session.pictures(session.split, roles=('target',)))
    for output, target in zip(session.translations(sources), targets, strict=True):
      example = {'made': output, 'target': target}
      resized = {f'{name}_256': resizing.resize_for_lpips(x) for name, x in example.items()}
      yield example | resized

  params = session.put({item.name: item.params for item in session.learned})
  return scores.stack(session.stream(score, (params,), examples()))
