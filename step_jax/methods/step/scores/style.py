"""Scores of style codes: agreement of neighbours, and prediction of the factors of style."""

from collections.abc import Iterator, Sequence
import itertools
import tempfile

import numpy as np

from step_jax.data import pipeline, swatches
from step_jax.evaluate.intervals import bootstrap
from step_jax.evaluate.scores import Score, Skipped, mean_score
from step_jax.evaluate.session import BATCH, NO_STYLES, feature_facts
from step_jax.methods.step.mining import styles
from step_jax.methods.step.scores.session import StepSession as Session
from step_jax.methods.step.search import neighbors

RETRIEVED = 5

# Ridge of the linear probe, on standardised codes.
_RIDGE = 1e-3
# Factor groups of swatches; angles count as their sine and cosine.
FACTORS = {
  'palette': ('hue', 'spread', 'saturation', 'brightness'),
  'texture': ('frequency', 'contrast'),
  'light': ('light_angle', 'light_strength'),
}
_TURNS = {'hue': 1.0, 'light_angle': 2 * np.pi}


def measure(session: Session) -> Iterator[Score | Skipped]:
  """Yields the scores of the group `style` that need no translations."""
  if not session.styled:
    yield Skipped('style', NO_STYLES)
    return
  if session.count < 4:
    yield Skipped('retrieval', f'{session.split} has {session.count} pictures, and 4 are needed')
  else:
    yield _retrieval(session)
  if not session.pair_set.fingerprint.startswith('swatches-'):
    yield Skipped('probe', 'the factors of style are known only for swatches')
    return
  names = {split: session.pair_set.split(split).names() for split in ('train', session.split)}
  train, tested = ((session.codes(split), names[split]) for split in ('train', session.split))
  fitted = {'fitted to': session.digest('train')}
  for factor, errors in probe(*train, *tested).items():
    protocol = session.protocol('probe-{factor}', {'factor': factor}, **fitted)
    yield Score(protocol, r_squared(errors), bootstrap(errors, statistic=r_squared))


def _retrieval(session: Session) -> Score:
  # If nearly all others are among the nearest, any code finds them.
  k = min(RETRIEVED, (session.count - 1) // 2)
  features = session.features

  def batches(start):
    pictures = itertools.islice(session.pictures(session.split, roles=('target',)), start, None)
    return pipeline.eval_batches(pictures, BATCH)

  with tempfile.TemporaryDirectory() as scratch:
    vectors = styles.style_vectors(
      features.module,
      features.params,
      batches,
      session.count,
      scratch,
    )
    nearest = neighbors.find_neighbors(vectors, k, 0).nearest
  protocol = session.protocol(
    'retrieval-precision@{k}-{net}',
    {'k': str(k), 'net': session.net},
    taps=', '.join(features.module.taps),
    **feature_facts(features),
  )
  return mean_score(protocol, retrieval_precision(session.codes(session.split), nearest))


def mean_code_distance(z: np.ndarray) -> float:
  """Mean Euclidean distance of two different codes of `[N, Z]`; 0 if there is only one."""
  if len(z) < 2:
    return 0.0
  return float(sum(map(np.sum, _distances(z))) / (len(z) * (len(z) - 1)))


def retrieval_precision(z: np.ndarray, nearest: np.ndarray) -> np.ndarray:
  """Fraction of the k nearest images by code that are also among the k nearest in style.

  Args:
    z: style codes `[N, Z]`.
    nearest: int `[N, k]`, the k nearest others by style distance.

  Returns:
    float64 `[N]` in [0, 1]; the mean at chance is k / (N - 1).
  """
  k = nearest.shape[1]
  shares = []
  for i, distance in enumerate(_distances(z)):
    distance[i] = np.inf
    retrieved = np.argsort(distance, kind='stable')[:k]
    shares.append(len(set(retrieved) & set(nearest[i])) / k)
  return np.array(shares)


def probe(
  train_codes: np.ndarray, train_names: Sequence[str], codes: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
  """Errors of predicting the known factors of `swatches` by a linear map of codes.

  Args:
    train_codes, train_names: codes `[M, Z]` and names of the images for fitting the map.
    codes, names: codes `[N, Z]` and names of the images for testing it.

  Returns:
    Group of factors -> float64 `[N, 2, F]`, squared errors of the map and of the mean, see
    `r_squared`.
  """
  mean, deviation = train_codes.mean(axis=0), train_codes.std(axis=0) + 1e-12
  inputs, test_inputs = ((c - mean) / deviation for c in (train_codes, codes))
  errors_of = {}
  for group, factors in FACTORS.items():
    targets, test_targets = (_factors(n, factors) for n in (train_names, names))
    centre = targets.mean(axis=0)
    gram = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ (targets - centre))
    errors = test_targets - centre - test_inputs @ weights, test_targets - test_targets.mean(axis=0)
    errors_of[group] = np.square(np.stack(errors, axis=1))
  return errors_of


def r_squared(errors: np.ndarray) -> float:
  """Mean R^2 of factors, from the errors `[N, 2, F]` of `probe`: at most 1; 0 equals the mean."""
  of_map, of_mean = errors.sum(axis=0)
  return float(np.mean(1 - of_map / of_mean))


def _factors(names: Sequence[str], factors: Sequence[str]) -> np.ndarray:
  """Values of factors `[N, F]` of images of `swatches`, by their names."""
  styles = [swatches.style_of(name) for name in names]
  columns = []
  for factor in factors:
    values = np.array([getattr(style, factor) for style in styles])
    if factor in _TURNS:
      angle = 2 * np.pi * values / _TURNS[factor]
      columns += [np.sin(angle), np.cos(angle)]
    else:
      columns.append(values)
  return np.stack(columns, axis=1)


def _distances(z: np.ndarray) -> Iterator[np.ndarray]:
  """Yields distances `[N]` of each code of `[N, Z]` to all, without a matrix of all distances."""
  z = z.astype(np.float64)
  return (np.sqrt(np.square(z - one).sum(axis=-1)) for one in z)
