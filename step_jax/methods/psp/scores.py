"""Scores that only pSp has."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import data, images
from step_jax.data import pipeline
from step_jax.errors import WeightsError
from step_jax.evaluate import diversity, reconstruction, resizing, scores, segmenter
from step_jax.evaluate.scores import Score, Skipped, mean_score
from step_jax.evaluate.session import Session
from step_jax.methods.psp import functions, inputs, losses, networks, published, styles
from step_jax.methods.psp import generator as generator_lib
from step_jax.weights import known

# Number of outputs per input in diversity scores, and maximum number of inputs.
_OUTPUTS, _INPUTS = 16, 100


class PspSession(Session):
  """Sources are inputs of the encoder; outputs are compared at the size of the targets."""

  def pictures(
    self, split: str, limit: int | None = None, roles: Sequence[str] = ()
  ) -> Iterator[dict[str, np.ndarray]]:
    """Examples of a split in order: sources of the task, and center crops of targets."""
    for example in inputs.eval_examples(self.config, self.pair_set, split, limit):
      yield {role: example[role] for role in roles or example}

  def translations(self, examples: Iterable[Mapping[str, Any]]) -> Iterator[np.ndarray]:
    """Translations at the size of the targets; see `Session.translations`."""
    side = inputs.eval_crop(self.config)[0]
    fit = jax.jit(functions.fit, static_argnums=1)
    for output in super().translations(examples):
      yield np.asarray(fit(output[None], side)[0])

  @property
  def sampling(self) -> str:
    """How styles are sampled."""
    first = f'{styles.first_fine(self.run.num_styles)}-'
    return f'mapping network of N(0, I), in layers {first} of {self.run.num_styles}'


class _MeanSession(PspSession):
  """Session in which every output is the image of the mean style."""

  def translations(self, examples: Iterable[Mapping[str, Any]]) -> Iterator[np.ndarray]:
    """See `Session.translations`."""
    code = np.broadcast_to(self.run.params['mean_style'], self.run.code_shape)
    output = functions.fit(self.run.generate(code)[None], inputs.eval_crop(self.config)[0])
    for _ in examples:
      yield np.asarray(output[0])


def _mean_style(session: Session) -> Iterator[Score]:
  """Yields scores of the image of the mean style against all targets."""
  fields = {field.name: getattr(session, field.name) for field in dataclasses.fields(session)}
  measured = reconstruction.measure(_MeanSession(**fields))
  by_id = {score.protocol.id: score for score in measured if isinstance(score, Score)}
  of = {'psnr/uint8': session.protocol('psnr-mean-style/uint8')}
  for item in session.learned:
    of[f'{item.name}/256'] = session.protocol(
      '{lpips}-mean-style/256', {'lpips': item.name}, weights=item.weights
    )
  for name, protocol in of.items():
    yield dataclasses.replace(by_id[name], protocol=protocol)


def _structure(session: Session) -> Iterator[Score | Skipped]:
  """Yields segmentation scores of outputs, of outputs in sampled styles, and of targets."""
  config, labels = session.config, session.pair_set.labels
  if not labels.palette:
    yield Skipped('segmentation', 'no label maps are read: set data.palette')
    return
  side = data.sides(session.pair_set, config.data.direction)[1]
  net, digest = segmenter.trained(session.pair_set, side, labels.classes, config.data.crop)
  reader = segmenter.Segmenter(labels.classes)
  maps = pipeline.eval_examples(
    session.pair_set.split(session.split), {'labels': 'labels'}, inputs.eval_crop(config)
  )
  kinds = '', '-sampled', '-photos'

  def read(net, batch):
    return {kind: segmenter.confusion(reader, net, batch[kind], batch['labels']) for kind in kinds}

  rows = (
    {'': pair['output'], '-photos': pair['target'], '-sampled': sampled, **label_map}
    for pair, sampled, label_map in zip(
      _compared(session), session.sampled(session.count), maps, strict=True
    )
  )
  tables = scores.stack(session.stream(read, (session.put(net),), rows))
  facts = {'segmenter': f'{digest}, {segmenter.SETTINGS}'}
  own = {'': {'pictures': reconstruction.WITHOUT_CODE}, '-photos': {}}
  own['-sampled'] = {'sampler': session.sampling, 'seed': str(session.seed)}
  for kind in kinds:
    table = tables[kind].astype(np.float64)
    protocol = session.protocol(f'segmentation-miou{kind}', **facts, **own[kind])
    yield Score(protocol, segmenter.mean_iou(table.sum(axis=0)))
    protocol = session.protocol(f'segmentation-accuracy{kind}', **facts, **own[kind])
    yield mean_score(protocol, segmenter.pixel_accuracy(table))


def _compared(session: Session) -> Iterator[dict[str, np.ndarray]]:
  """Outputs and targets of all examples, uint8 `[H, W, 3]`."""
  outputs = session.translations({**example, 'code': None} for example in session.sources())
  targets = session.pictures(session.split, roles=('target',))
  for output, example in zip(outputs, targets, strict=True):
    yield {'output': output, 'target': example['target']}


def _reconstruction(session: Session) -> Iterator[Score | Skipped]:
  """Yields the general scores, their baselines, L2 as in the reference, and identities."""
  yield from reconstruction.measure(session)
  yield from _mean_style(session)
  yield from _structure(session)
  identity, face = None, {}
  try:
    file = published.find('metric')
    identity, variables = published.read_face_embedding(file)
    face = session.put(variables)
  except WeightsError as error:
    yield Skipped('identity', f'of aligned faces alone: {error}')

  generator = networks.generator(session.config)
  side = inputs.eval_crop(session.config)[0]

  def compare(variables, face, batch):
    output = functions.draw(generator, variables, batch['code'], round_down=True)
    pair = [images.to_float(x) for x in (functions.fit(output, side), batch['target'])]
    distances = {'l2': jnp.mean(jnp.square(pair[0] - pair[1]), axis=(1, 2, 3))}
    if identity is not None:
      embed = lambda x: identity.apply(face, x)
      features = [losses.identity_features(embed, x) for x in pair]
      distances['identity'] = losses.cosine(*features)
    return distances

  coded = (
    {'code': session.run.encode(example['source']), 'target': example['target']}
    for example in session.pictures(session.split)
  )
  values = scores.stack(session.stream(compare, (session.params, face), coded))
  yield mean_score(session.protocol('l2/float'), values['l2'])
  if identity is not None:
    facts = {'weights': known.digest(file)}
    yield mean_score(session.protocol('identity/112', **facts), values['identity'])


def _diversity(session: Session) -> Iterator[Score | Skipped]:
  """Yields the general scores, and that of outputs that differ only in the generator's noise."""
  yield from diversity.measure(session)
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
    distances = {}
    for item in session.learned:
      seen = item.features(params[item.name], batch['outputs'][0])
      distances[item.name] = item.between_all(params[item.name], seen)[None]
    return distances

  codes = (
    {'code': session.run.encode(example['source']), 'number': np.int32(i)}
    for i, example in enumerate(session.sources(count))
  )
  drawn = session.stream(draw, (session.params,), codes, batch_size=1)
  sets = (
    {'outputs': np.stack([resizing.resize_for_lpips(x) for x in row['outputs']])} for row in drawn
  )
  params = session.put({item.name: item.params for item in session.learned})
  distances = scores.stack(session.stream(compare, (params,), sets, batch_size=1))
  facts = {'seed': str(session.seed), 'inputs': str(count)}
  for item in session.learned:
    protocol = session.protocol(
      '{lpips}-diversity-noise/256', {'lpips': item.name}, weights=item.weights, **facts
    )
    yield mean_score(protocol, diversity.all_pairs(distances[item.name]))


MEASURES = (
  (_reconstruction, frozenset({'reconstruction', 'style'})),
  (_diversity, frozenset({'diversity'})),
)
