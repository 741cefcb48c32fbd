"""A run of StEP opened for evaluation."""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import functools
import logging

import numpy as np

from step_jax.evaluate import scores
from step_jax.evaluate.session import Session
from step_jax.methods.step import functions, networks, samplers
from step_jax.methods.step import models as nets

log = logging.getLogger(__name__)


class StepSession(Session):
  """Codes are `[Z]`."""

  @property
  def encoder(self) -> nets.StyleEncoder:
    """The style encoder."""
    return networks.style_encoder(self.config)

  @property
  def generator(self) -> nets.Generator:
    """The generator."""
    return networks.generator(self.config)

  @property
  def styled(self) -> bool:
    """Whether the run has styles; codes of pix2pix have length zero."""
    return self.config.model.z_dim > 0

  @functools.cache  # noqa: B019
  def codes(self, split: str) -> np.ndarray:
    """Style codes `[N, Z]` of the targets of a split."""
    encoder = self.encoder
    encode = lambda params, batch: {'z': functions.encode(encoder, params, batch['target'])}
    return scores.stack(
      self.stream(encode, (self.params,), self.pictures(split, roles=('target',)))
    )['z']

  def translations(self, examples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[np.ndarray]:
    """Outputs uint8 `[H, W, 3]` of `{'source': uint8 [H, W, 3], 'code': [Z]}`, in order."""
    generator = self.generator

    def generate(params, batch):
      return {'output': functions.generate(generator, params, batch['source'], batch['code'])}

    return (row['output'] for row in self.stream(generate, (self.params,), examples))

  @functools.cached_property
  def sampler(self) -> samplers.Sampler:
    """The sampler that the run uses by default: its mapper or its Gaussian."""
    name = self.run.sampler_name
    if name in self.run.samplers:
      return self.run.sampler()
    if self.run.note:
      log.warning('%s', self.run.note)
    return samplers.gaussian(self.codes('train'))

  @property
  def sampling(self) -> str:
    """How styles are sampled, for definitions; the same rule for all runs makes them comparable."""
    if not self.styled:
      return 'none, for the run has no styles'
    if not self.run.samplers:
      return 'normal distribution with mean and covariance of the codes of the train targets'
    if self.run.fitted_to is None:
      return 'mapper'
    return (
      'mapper fitted to this encoder, or the normal distribution with mean and covariance of its '
      'training codes where that has the lower energy distance to held-out codes'
    )

  @property
  def drawn_by(self) -> dict[str, str]:
    """The sampler that the rule selected in this run, and the encoder that the mapper records."""
    if not self.styled:
      return {}
    encoder = self.run.fitted_to
    return {'sampler': self.sampler.name, **(dataclasses.asdict(encoder) if encoder else {})}

  def draw(self, count: int) -> np.ndarray:
    """Samples style codes `[count, Z]` with the `sampler`; reproducible for a seed."""
    if not self.styled:
      return np.zeros((count, 0), np.float32)
    return self.sampler.draw(count, self.seed)
