"""Diversity: how different the translations of one input are, and whether they cover the data."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from step_jax.data import pictures
from step_jax.evaluate import bins, resizing, scores
from step_jax.evaluate.scores import Score, Skipped, chunks, mean_score, stack
from step_jax.evaluate.session import NO_STYLES, Session

INPUTS = 100
# Styles per input in the protocols of StEP and BicycleGAN.
STEP, BICYCLEGAN = 16, 20
_BIN_SIZE = 32
_OUTPUTS_PER_BIN, _MOST_BINS = 10, 100
_REFERENCES = 5000


def measure(session: Session) -> Iterator[Score | Skipped]:
  """Yields the scores of the group `diversity`."""
  if session.styled:
    yield from _learned(session)
  else:
    yield Skipped('LPIPS diversity', NO_STYLES)
  yield from _bins(session)


def _learned(session: Session) -> Iterator[Score | Skipped]:
  inputs = min(INPUTS, session.count)
  facts = {'seed': str(session.seed), 'inputs': str(inputs)}
  exemplars = min(STEP, session.count - 1)
  if not session.method.needs_code:
    yield Skipped('exemplar diversity', f'runs of {session.run.method} need no style image')
  elif exemplars < 2:
    yield Skipped('exemplar diversity', f'{session.split} has {session.count} pictures')
  else:
    distances = _distances(session, exemplar_styles(session, inputs, exemplars), inputs, exemplars)
    for item in session.learned:
      name, weights = {'lpips': item.name}, {'weights': item.weights, 'styles': str(exemplars)}
      protocol = session.protocol('{lpips}-diversity-exemplar/256', name, **weights, **facts)
      yield mean_score(protocol, all_pairs(distances[item.name]))
  drawn = jax.tree.map(
    lambda x: x.reshape(inputs, BICYCLEGAN, *x.shape[1:]), session.draw(inputs * BICYCLEGAN)
  )
  distances = _distances(session, drawn, inputs, BICYCLEGAN)
  for item in session.learned:
    for kind, values in {
      'sampled': all_pairs(distances[item.name][:, :STEP, :STEP]),
      'bicyclegan': consecutive_pairs(distances[item.name]),
    }.items():
      protocol = session.protocol(
        f'{{lpips}}-diversity-{kind}/256',
        {'lpips': item.name},
        weights=item.weights,
        sampler=session.sampling,
        **facts,
      )
      yield mean_score(protocol, values)


def exemplar_styles(session: Session, inputs: int, count: int) -> Any:
  """Codes `[inputs, count, …]` of other targets of the split for each of the first inputs."""
  rows = []
  for i in range(inputs):
    others = np.delete(np.arange(session.count), i)
    rows.append(np.random.default_rng([session.seed, i]).choice(others, count, replace=False))
  return scores.at(session.codes(session.split), np.stack(rows))


def all_pairs(distances: np.ndarray) -> np.ndarray:
  """Mean distance over all pairs of outputs of an input: `[N, S, S] -> [N]`."""
  upper = np.triu_indices(distances.shape[1], 1)
  return distances[:, *upper].mean(axis=1)


def consecutive_pairs(distances: np.ndarray) -> np.ndarray:
  """Mean distance of consecutive outputs of an input: `[N, S, S] -> [N]`."""
  return np.diagonal(distances, 1, axis1=1, axis2=2).mean(axis=1)


def _distances(session: Session, styles: Any, inputs: int, count: int) -> dict[str, np.ndarray]:
  """LPIPS between all outputs of an input in styles `[inputs, count, …]`, by name.

  Each is float32 `[inputs, count, count]`.
  """

  def compare(params, batch):
    # One input at a time, because the features of its outputs fill a small device.
    outputs = batch['outputs'][0]
    distances = {}
    for item in session.learned:
      seen = item.features(params[item.name], outputs)
      distances[item.name] = item.between_all(params[item.name], seen)[None]
    return distances

  examples = (
    {**example, 'code': scores.at(styles, (i, j))}
    for i, example in enumerate(session.sources(inputs))
    for j in range(count)
  )
  outputs = map(resizing.resize_for_lpips, session.translations(examples))
  sets = ({'outputs': np.stack(rows)} for rows in chunks(outputs, count))
  params = session.put({item.name: item.params for item in session.learned})
  return stack(session.stream(compare, (params,), sets, batch_size=1))


def _bins(session: Session) -> Iterator[Score | Skipped]:
  train = min(_REFERENCES, session.pair_set.splits['train'])
  count = min(_MOST_BINS, session.count // _OUTPUTS_PER_BIN)
  if count < 2:
    needed = 2 * _OUTPUTS_PER_BIN
    yield Skipped(
      'NDB and JSD', f'{session.split} has {session.count} pictures, and {needed} are needed'
    )
    return
  targets = (e['target'] for e in session.pictures('train', train, roles=('target',)))
  references = np.stack([_flat(picture) for picture in targets])
  different = len({reference.tobytes() for reference in references})
  if different < count:
    yield Skipped(
      'NDB and JSD',
      f'the first {train} pictures of train have {different} different targets at {_BIN_SIZE} px, '
      f'and {count} bins need as many',
    )
    return
  fitted = bins.fit_bins(references, count)
  counts = np.zeros(count, np.int64)
  for output in session.sampled(session.count):
    counts += bins.count_bins(fitted, _flat(output)[None])
  compared = bins.compare_bins(fitted.counts, counts)
  facts = {
    'reference': session.digest('train', train),
    'bins': str(count),
    'sampler': session.sampling,
    'seed': str(session.seed),
  }
  yield Score(session.protocol('ndb/32', **facts), compared.share)
  yield Score(session.protocol('jsd/32', **facts), compared.jsd)


def _flat(picture: np.ndarray) -> np.ndarray:
  return pictures.resize(picture, (_BIN_SIZE, _BIN_SIZE)).reshape(-1)
