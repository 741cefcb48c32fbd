"""The parts of a step of stages 2 and 3 that the loss weights require."""

from collections.abc import Mapping
import dataclasses

import ml_collections

from step_jax.methods.step.steps import terms

_DISCRIMINATORS = ('discriminator', 'discriminator_2')


@dataclasses.dataclass(frozen=True)
class Plan:
  """The images and codes that a step needs, and the networks that it trains.

  Attributes:
    weights: name of a term -> weight. A term is computed only if its weight is above zero.
    variational: whether codes are sampled around the encoder's mean; false: with fixed noise.
    train_encoder: whether the style encoder is trained.
  """

  weights: Mapping[str, float]
  variational: bool
  train_encoder: bool

  @classmethod
  def of(cls, config: ml_collections.ConfigDict) -> 'Plan':
    """The plan of a configuration."""
    weights = terms.weights(terms.TRANSLATE, config.loss)
    return cls(weights, config.model.variational, config.train_encoder)

  @property
  def active(self) -> list[terms.Term]:
    """The active terms."""
    return [term for term in terms.TRANSLATE if self.on(term.name)]

  @property
  def cycle(self) -> bool:
    """Whether a second pair is read, and styles are swapped and recovered."""
    return any({'cycle', 'swap'} & set(term.images) for term in self.active)

  @property
  def random(self) -> bool:
    """Whether images are generated from random codes."""
    return any('random' in term.images for term in self.active)

  def on(self, *names: str) -> bool:
    """Whether any of these terms is active."""
    return any(self.weights[name] > 0 for name in names)

  @property
  def latent(self) -> bool:
    """Whether the generator has the second objective."""
    return self.random or any(t.objective == 'latent' and t.images for t in self.active)

  @property
  def discriminators(self) -> tuple[str, ...]:
    """Names of the discriminators that are trained.

    `discriminator`, and `discriminator_2` if images of random codes have a separate one.
    """
    objectives = {term.objective for term in self.active}
    return tuple(name for name in _DISCRIMINATORS if name in objectives)

  def judged(self, discriminator: str) -> dict[str, float]:
    """Kinds of generated images that a discriminator gets, with their weights."""
    judged = [term for term in self.active if term.objective == discriminator]
    return {kind: self.weights[term.name] for term in judged for kind in term.images}
