"""What the loss weights of a configuration imply for a step of stages 2 and 3."""

from collections.abc import Mapping
import dataclasses

import ml_collections

GENERATOR_TERMS = (
  'recon_perceptual', 'recon_l1', 'cycle_perceptual', 'cycle_l1', 'gan', 'z_kl', 'z_l2',
)  # fmt: skip
LATENT_TERMS = ('gan_latent', 'z_recon', 'z_random_recon')
CYCLE_WEIGHTS = ('cycle_perceptual', 'cycle_l1', 'd_cycle', 'd_swap', 'z_recon')
RANDOM_WEIGHTS = ('d_random', 'd2_random', 'z_random_recon')
# Discriminator -> kind of generated picture that it may judge -> the weight that says whether it
# does.
JUDGED = {
  'discriminator': {
    'direct': 'd_direct', 'cycle': 'd_cycle', 'swap': 'd_swap', 'random': 'd_random',
  },
  'discriminator_2': {'random': 'd2_random'},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
  """Which pictures and codes a step makes, and who learns from them.

  Attributes:
    weights: name in `config.loss` -> weight. A term exists exactly when its weight is above zero.
    cycle: whether a second pair is read and styles are swapped and read back.
    random: whether drawn codes are decoded.
    variational: whether codes are drawn around the encoder's mean, not taken with fixed noise.
    train_encoder: whether the style encoder is trained.
  """

  weights: Mapping[str, float]
  cycle: bool
  random: bool
  variational: bool
  train_encoder: bool

  @classmethod
  def of(cls, config: ml_collections.ConfigDict) -> 'Plan':
    """The plan of a configuration."""
    weights = config.loss.to_dict()
    return cls(
      weights=weights,
      cycle=any(weights[name] > 0 for name in CYCLE_WEIGHTS),
      random=any(weights[name] > 0 for name in RANDOM_WEIGHTS),
      variational=config.model.variational,
      train_encoder=config.train_encoder,
    )

  def on(self, *names: str) -> bool:
    """Whether any of these terms exists."""
    return any(self.weights[name] > 0 for name in names)

  @property
  def latent(self) -> bool:
    """Whether the generator has its second objective."""
    return self.on(*RANDOM_WEIGHTS, 'z_recon')

  @property
  def perceptual(self) -> bool:
    """Whether a feature net is needed."""
    return self.on('recon_perceptual', 'cycle_perceptual')

  @property
  def discriminators(self) -> tuple[str, ...]:
    """Names of the discriminators that are trained.

    `discriminator`, and `discriminator_2` where pictures of drawn codes have one of their own.
    """
    return tuple(name for name, kinds in JUDGED.items() if self.on(*kinds.values()))

  def judged(self, discriminator: str) -> dict[str, float]:
    """Kinds of generated pictures that a discriminator judges, and the weight of each."""
    kinds = JUDGED[discriminator]
    return {kind: self.weights[key] for kind, key in kinds.items() if self.on(key)}
