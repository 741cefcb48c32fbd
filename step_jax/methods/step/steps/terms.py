"""The loss terms of StEP and its baselines, each declared once.

From these tables come the fields `loss.…` of configurations, their reference, and what the training
steps compute.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax

from step_jax import losses
from step_jax.fields import NOT_NEGATIVE, Field


@dataclasses.dataclass(frozen=True)
class Term:
  """A loss term; it exists exactly when its weight is above zero.

  Attributes:
    name: in `config.loss`, in logs, and in the reference.
    weight: the default one.
    meaning: for the reference.
    objective: the sum that it is part of; each is minimised by an optimiser of its own.
    formula: what is said at each table -> float32 scalar, or None where there is nothing to sum.
      Terms of a discriminator have none: it judges all its pictures in one pass.
    images: kinds of generated pictures that it needs.
    weight_of: another term whose weight it has, in place of one of its own.
  """

  name: str
  weight: float
  meaning: str
  objective: str
  formula: Callable[..., jax.Array | None] | None = None
  images: tuple[str, ...] = ()
  weight_of: str = ''


class Outputs(NamedTuple):
  """What terms of stages 2 and 3 see: what the networks make of a batch.

  All arrays hold the pictures, or codes, of one or two pairs in turn (`translate.interleave`).

  Attributes:
    count: pairs a batch has. Terms are summed over them.
    targets: the true pictures.
    codes: `(z, mean, logvar)` of the targets.
    read_back: codes of the swapped pictures, at the place of the pair whose style they should have.
    drawn: codes from N(0, I).
    random_codes: codes read from the pictures of drawn codes.
    fakes: kind of generated picture -> pictures.
    perceptual: kind of generated picture -> perceptual distance to the targets.
    adversarial: `generator` and `latent` -> how far generated pictures are from being judged real.
  """

  count: int
  targets: jax.Array
  codes: tuple[jax.Array, jax.Array, jax.Array]
  read_back: jax.Array | None
  drawn: jax.Array | None
  random_codes: jax.Array | None
  fakes: dict[str, jax.Array]
  perceptual: Callable[[str], jax.Array]
  adversarial: Mapping[str, jax.Array]


# Formulas see the codes `[B, Z]` of anchors, positives and negatives, and the margin.
PRETRAIN = (
  Term(
    'triplet', 1.0, 'hinge on squared distances of codes', 'encoder',
    lambda codes, margin: losses.triplet_loss(*codes, margin=margin),
  ),
  Term(
    'z_l2', 0.01, 'mean square of the codes', 'encoder',
    lambda codes, margin: sum(losses.l2_loss(z) for z in codes),
  ),
)  # fmt: skip

# Formulas see `Outputs`.
TRANSLATE = (
  Term(
    'recon_perceptual', 0.02, 'perceptual distance of direct pictures to their targets',
    'generator', lambda o: o.count * o.perceptual('direct'), ('direct',),
  ),
  Term(
    'recon_l1', 0.0, 'mean absolute difference of the same, in [-1, 1]',
    'generator', lambda o: o.count * losses.l1_loss(o.fakes['direct'], o.targets), ('direct',),
  ),
  Term(
    'cycle_perceptual', 0.0, 'as `recon_perceptual`, of cyclic pictures',
    'generator', lambda o: o.count * o.perceptual('cycle'), ('cycle',),
  ),
  Term(
    'cycle_l1', 0.0, 'as `recon_l1`, of cyclic pictures',
    'generator', lambda o: o.count * losses.l1_loss(o.fakes['cycle'], o.targets), ('cycle',),
  ),
  Term(
    'gan', 1.0, "weight of the generator's adversarial loss",
    'generator', lambda o: o.adversarial.get('generator'),
  ),
  Term('d_direct', 1.0, 'how much the discriminator judges direct pictures',
       'discriminator', images=('direct',)),
  Term('d_cycle', 0.0, '… cyclic pictures', 'discriminator', images=('cycle',)),
  Term('d_swap', 0.0, '… swapped pictures', 'discriminator', images=('swap',)),
  Term('d_random', 0.0, '… random pictures', 'discriminator', images=('random',)),
  Term('d2_random', 0.0, 'the same by a discriminator of their own',
       'discriminator_2', images=('random',)),
  Term(
    'z_kl', 0.0, 'KL divergence of codes from N(0, I), summed over the batch',
    'generator', lambda o: losses.kl_loss(*o.codes[1:]),
  ),
  Term(
    'z_l2', 0.01, 'mean square of the codes',
    'generator', lambda o: o.count * losses.l2_loss(o.codes[0]),
  ),
  Term(
    'gan_latent', 0.0, 'the part of `gan` that drawn and read-back codes are in',
    'latent', lambda o: o.adversarial.get('latent'), weight_of='gan',
  ),
  Term(
    'z_recon', 0.0, 'mean absolute error of codes that are read back from swapped pictures',
    'latent', lambda o: o.count * losses.l1_loss(o.read_back, o.codes[0]), ('swap',),
  ),
  Term(
    'z_random_recon', 0.0, '… from random pictures',
    'latent', lambda o: o.count * losses.l1_loss(o.random_codes, o.drawn), ('random',),
  ),
)  # fmt: skip


OBJECTIVES = {term.name: term.objective for term in TRANSLATE}


def fields(terms: Sequence[Term]) -> dict[str, Field]:
  """The fields of a configuration that are the weights of terms."""
  return {
    f'loss.{term.name}': Field(term.weight, term.meaning, NOT_NEGATIVE)
    for term in terms
    if not term.weight_of
  }


def weights(terms: Sequence[Term], loss: Mapping[str, float]) -> dict[str, float]:
  """Name of every term -> its weight by `config.loss`."""
  return {term.name: loss[term.weight_of or term.name] for term in terms}


def evaluate(
  terms: Sequence[Term], weights: Mapping[str, float], *seen: Any
) -> dict[str, jax.Array]:
  """Name of every term that exists and has a formula -> its value, without its weight."""
  values = {t.name: t.formula(*seen) for t in terms if t.formula and weights[t.name] > 0}
  return {name: value for name, value in values.items() if value is not None}
