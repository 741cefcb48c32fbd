"""What is measured of pSp beside what is measured of every method."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import images
from step_jax.errors import WeightsError
from step_jax.evaluate import diversity, reconstruction, resizing, scores
from step_jax.evaluate.scores import Score, Skipped, mean_score
from step_jax.evaluate.session import Session
from step_jax.methods.psp import functions, inputs, losses, networks, published, styles
from step_jax.methods.psp import generator as generator_lib
from step_jax.weights import known

# Outputs of an input in the scores of diversity, and inputs at most.
_OUTPUTS, _INPUTS = 16, 100


class PspSession(Session):
  """Sources are what the encoder reads; outputs are compared in the size of the targets."""

  def pictures(
    self, split: str, limit: int | None = None, roles: Sequence[str] = ()
  ) -> Iterator[dict[str, np.ndarray]]:
    """Examples of a split in order: sources as the task has them, targets in their middle crop."""
    for example in inputs.eval_examples(self.config, self.pair_set, split, limit):
      yield {role: example[role] for role in roles or example}

  def translations(self, examples: Iterable[Mapping[str, Any]]) -> Iterator[np.ndarray]:
    """As `Session.translations`, in the size of the targets."""
    side = inputs.eval_crop(self.config)[0]
    fit = jax.jit(functions.fit, static_argnums=1)
    for output in super().translations(examples):
      yield np.asarray(fit(output[None], side)[0])

  @property
  def sampling(self) -> str:
    """Where drawn styles come from."""
    first = f'{styles.first_fine(self.run.num_styles)}-'
    return f'mapping network of N(0, I), in layers {first} of {self.run.num_styles}'


def _compared(session: Session) -> Iterator[dict[str, np.ndarray]]:
  """Outputs and targets of all examples, uint8 `[H, W, 3]`."""
  outputs = session.translations({**example, 'code': None} for example in session.sources())
  targets = session.pictures(session.split, roles=('target',))
  for output, example in zip(outputs, targets, strict=True):
    yield {'output': output, 'target': example['target']}


def _reconstruction(session: Session) -> Iterator[Score | Skipped]:
  """Yields the general scores, the reference's L2, and identities where there are weights."""
  yield from reconstruction.measure(session)
  identity = None
  try:
    identity, variables = networks.similarity(session.config, 'identity')
    variables = session.put(variables)
  except WeightsError as error:
    yield Skipped('identity', f'of aligned faces alone: {error}')

  def compare(variables, batch):
    pair = [images.to_float(batch[name]) for name in ('output', 'target')]
    found = {'l2': jnp.mean(jnp.square(pair[0] - pair[1]), axis=(1, 2, 3))}
    if identity is not None:
      embed = lambda x: identity.apply(variables, x)
      features = [losses.identity_features(embed, x) for x in pair]
      found['identity'] = losses.cosine(*features)
    return found

  constants = (variables if identity is not None else {},)
  values = scores.stack(session.stream(compare, constants, _compared(session)))
  yield mean_score(session.protocol('l2/float'), values['l2'])
  if identity is not None:
    file = published.find('identity', session.config.features.identity)
    facts = {'weights': known.digest(file)}
    yield mean_score(session.protocol('identity/112', **facts), values['identity'])


def _diversity(session: Session) -> Iterator[Score | Skipped]:
  """Yields the general scores, and that of outputs that differ in the generator's noise alone."""
  yield from diversity.measure(session)
  if not session.learned:
    yield Skipped('LPIPS diversity of noise', 'LPIPS has no weights')
    return
  generator = networks.generator(session.config)
  count = min(_INPUTS, session.count)

  def draw(variables, batch):
    def one(code, index):
      key = jax.random.fold_in(jax.random.key(session.seed), index)
      noise = generator_lib.random_noise(key, _OUTPUTS, generator.size)
      codes = jnp.broadcast_to(code, (_OUTPUTS, *code.shape))
      return functions.draw(generator, variables, codes, noise)

    return {'outputs': jax.lax.map(lambda args: one(*args), (batch['code'], batch['number']))}

  def compare(params, batch):
    found = {}
    for item in session.learned:
      seen = item.features(params[item.name], batch['outputs'][0])
      found[item.name] = item.between_all(params[item.name], seen)[None]
    return found

  codes = (
    {'code': session.run.encode(example['source']), 'number': np.int32(i)}
    for i, example in enumerate(session.sources(count))
  )
  drawn = session.stream(draw, (session.params,), codes, batch_size=1)
  sets = (
    {'outputs': np.stack([resizing.resize_for_lpips(x) for x in row['outputs']])} for row in drawn
  )
  params = session.put({item.name: item.params for item in session.learned})
  found = scores.stack(session.stream(compare, (params,), sets, batch_size=1))
  facts = {'seed': str(session.seed), 'inputs': str(count)}
  for item in session.learned:
    protocol = session.protocol(
      '{lpips}-diversity-noise/256', {'lpips': item.name}, weights=item.weights, **facts
    )
    yield mean_score(protocol, diversity.all_pairs(found[item.name]))


MEASURES = (
  (_reconstruction, frozenset({'reconstruction', 'style'})),
  (_diversity, frozenset({'diversity'})),
)
