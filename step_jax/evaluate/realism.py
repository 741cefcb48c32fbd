"""Realism: distances between the distributions of translations and of real images.

With Inception's weights these are FID and KID; without them, the same distances on features of
another network, with other names. Both sets are streams, of which only sums are kept.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import weights
from step_jax.errors import WeightsError
from step_jax.evaluate import distributions, resizing
from step_jax.evaluate.scores import Score, Skipped, chunks
from step_jax.evaluate.session import Session, feature_facts, feature_name
from step_jax.models import inception

_NET, _TAP, _SIZE = 'squeezenet1_1', 'fire9', 224
_FEWEST = 3
# Number of features that are added to sums at a time.
_ROWS = 64
_QUANTILE = 1.96


@dataclasses.dataclass(frozen=True)
class Judge:
  """The network whose features are compared.

  Attributes:
    frechet, kernel: names of the protocols.
    features: the network.
    size: side of its input images, px.
    blanks: values of the placeholders in the ids of the protocols.
  """

  frechet: str
  kernel: str
  features: weights.Features
  size: int
  blanks: dict[str, str]

  def describe(self, params, pictures):
    """Features, float32 `[B, D]`, of images in 0..255, float32 `[B, size, size, 3]`."""
    module = self.features.module
    if isinstance(module, inception.Inception):
      return module.apply({'params': params}, pictures)
    with jax.default_matmul_precision('highest'):
      taps = module.apply({'params': params}, pictures / 127.5 - 1)
    return jnp.mean(taps[_TAP], axis=(1, 2))


def judge() -> Judge:
  """Inception if its weights are available, otherwise SqueezeNet."""
  try:
    return Judge(
      'fid-inception-tf/299-clean',
      'kid-inception-tf/299-clean',
      weights.load_inception(),
      inception.SIZE,
      {},
    )
  except WeightsError:
    pass
  features = weights.load_features(_NET, [_TAP])
  names = 'frechet-{net}/224-clean', 'kernel-{net}/224-clean'
  return Judge(*names, features, _SIZE, {'net': feature_name(_NET, features)})


def measure(session: Session) -> Iterator[Score | Skipped]:
  """Yields the scores of the group `realism`."""
  count = min(session.count, session.pair_set.splits['train'])
  if count < _FEWEST:
    yield Skipped('realism', f'{count} pictures, and {_FEWEST} are needed')
    return
  judged_by = judge()
  real = (e['target'] for e in session.pictures('train', count, roles=('target',)))
  frechet, kernel = distances(
    _describe(session, judged_by, real),
    _describe(session, judged_by, session.sampled(count)),
  )
  facts = {
    'reference': session.digest('train', count),
    'count': str(count),
    'sampler': session.sampling,
    'seed': str(session.seed),
    **feature_facts(judged_by.features),
  }
  protocol = lambda name: session.protocol(name, judged_by.blanks, **facts)
  yield Score(protocol(judged_by.frechet), frechet)
  margin = _QUANTILE * kernel.standard_error
  interval = kernel.value - margin, kernel.value + margin
  yield Score(protocol(judged_by.kernel), kernel.value, interval)


def distances(
  real: Iterable[np.ndarray], generated: Iterable[np.ndarray]
) -> tuple[float, distributions.KernelScore]:
  """Fréchet and kernel distance of two streams of feature vectors `[D]` of equal length.

  Raises:
    ValueError: the streams differ in length, or have fewer than 3 vectors.
  """
  kernel = distributions.KernelDistance()
  moments = None
  for pairs in chunks(zip(real, generated, strict=True), _ROWS):
    blocks = [np.stack(block) for block in zip(*pairs, strict=True)]
    kernel.add(*blocks)
    latest = [distributions.moments(block) for block in blocks]
    moments = list(map(distributions.merge, moments, latest)) if moments else latest
  return distributions.frechet_distance(*moments), kernel.score()


def _describe(session: Session, judged_by: Judge, pictures) -> Iterator[np.ndarray]:
  """Features `[D]` of each image, in order."""
  resize = functools.partial(resizing.resize_for_inception, size=judged_by.size)
  function = lambda params, batch: {'features': judged_by.describe(params, batch['picture'])}
  constants = (session.put(judged_by.features.params),)
  examples = ({'picture': resize(picture)} for picture in pictures)
  return (row['features'] for row in session.stream(function, constants, examples))
