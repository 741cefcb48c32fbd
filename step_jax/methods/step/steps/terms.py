"""The loss terms of StEP and its baselines, each declared once.

The fields `loss.…` of configurations, their documentation and the losses in training steps are
derived from these tables.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax

from step_jax import losses
from step_jax.fields import NOT_NEGATIVE, Field


@dataclasses.dataclass(frozen=True)
class Term:
  """A loss term. It is computed only if its weight is above zero.

  Attributes:
    name: name in `config.loss`, logs and documentation.
    weight: default weight.
    meaning: description for the documentation.
    objective: objective that the term is added to; each objective has its own optimizer.
    formula: arguments as described at each table -> float32 scalar, or None if there is nothing to
      sum. Terms of a discriminator have no formula: it gets all its images in one pass.
    images: kinds of generated images that the term needs.
    weight_of: another term whose weight is used; empty if the term has its own weight.
  """

  name: str
  weight: float
  meaning: str
  objective: str
  formula: Callable[..., jax.Array | None] | None = None
  images: tuple[str, ...] = ()
  weight_of: str = ''


class Outputs(NamedTuple):
  """Arguments of the terms of stages 2 and 3: outputs of the networks for a batch.

  All arrays hold the images, or codes, of one or two pairs, interleaved (`translate.interleave`).

  Attributes:
    count: number of pairs in a batch, over which terms are summed.
    targets: target images.
    codes: `(z, mean, logvar)` of the targets.
    read_back: codes of the swapped images, at the pair whose style they should have.
    drawn: codes sampled from N(0, I).
    random_codes: codes of the images generated from `drawn`.
    fakes: kind of generated image -> images.
    perceptual: kind of generated image -> perceptual distance to the targets.
    adversarial: `generator` and `latent` -> adversarial loss of the generated images.
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


# Arguments of formulas: codes `[B, Z]` of anchors, positives and negatives, and the margin.
PRETRAIN = (
  Term(
    'triplet', 1.0, 'triplet hinge loss on squared distances of codes', 'encoder',
    lambda codes, margin: losses.triplet_loss(*codes, margin=margin),
  ),
  Term(
    'z_l2', 0.01, 'mean square of the codes', 'encoder',
    lambda codes, margin: sum(losses.l2_loss(z) for z in codes),
  ),
)  # fmt: skip

# Argument of formulas: `Outputs`.
TRANSLATE = (
  Term(
    'recon_perceptual', 0.02, 'perceptual distance of direct images to their targets',
    'generator', lambda o: o.count * o.perceptual('direct'), ('direct',),
  ),
  Term(
    'recon_l1', 0.0, 'mean absolute difference of direct images and targets, in [-1, 1]',
    'generator', lambda o: o.count * losses.l1_loss(o.fakes['direct'], o.targets), ('direct',),
  ),
  Term(
    'cycle_perceptual', 0.0, 'as `recon_perceptual`, of cyclic images',
    'generator', lambda o: o.count * o.perceptual('cycle'), ('cycle',),
  ),
  Term(
    'cycle_l1', 0.0, 'as `recon_l1`, of cyclic images',
    'generator', lambda o: o.count * losses.l1_loss(o.fakes['cycle'], o.targets), ('cycle',),
  ),
  Term(
    'gan', 1.0, "weight of the generator's adversarial loss",
    'generator', lambda o: o.adversarial.get('generator'),
  ),
  Term('d_direct', 1.0, "weight of direct images in the discriminator's loss",
       'discriminator', images=('direct',)),
  Term('d_cycle', 0.0, "weight of cyclic images in the discriminator's loss",
       'discriminator', images=('cycle',)),
  Term('d_swap', 0.0, "weight of swapped images in the discriminator's loss",
       'discriminator', images=('swap',)),
  Term('d_random', 0.0, "weight of random images in the discriminator's loss",
       'discriminator', images=('random',)),
  Term('d2_random', 0.0, 'weight of random images in the loss of a second discriminator',
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
    'gan_latent', 0.0, 'the part of `gan` on images of swapped and random codes',
    'latent', lambda o: o.adversarial.get('latent'), weight_of='gan',
  ),
  Term(
    'z_recon', 0.0, 'mean absolute error of the codes recovered from swapped images',
    'latent', lambda o: o.count * losses.l1_loss(o.read_back, o.codes[0]), ('swap',),
  ),
  Term(
    'z_random_recon', 0.0, 'mean absolute error of the codes recovered from random images',
    'latent', lambda o: o.count * losses.l1_loss(o.random_codes, o.drawn), ('random',),
  ),
)  # fmt: skip


OBJECTIVES = {term.name: term.objective for term in TRANSLATE}


def fields(terms: Sequence[Term]) -> dict[str, Field]:
  """The configuration fields for the weights of terms."""
  return {
    f'loss.{term.name}': Field(term.weight, term.meaning, NOT_NEGATIVE)
    for term in terms
    if not term.weight_of
  }


def weights(terms: Sequence[Term], loss: Mapping[str, float]) -> dict[str, float]:
  """Name of every term -> its weight in `config.loss`."""
  return {term.name: loss[term.weight_of or term.name] for term in terms}


def evaluate(
  terms: Sequence[Term], weights: Mapping[str, float], *seen: Any
) -> dict[str, jax.Array]:
  """Name of every term with a formula and a weight above zero -> its unweighted value."""
  values = {t.name: t.formula(*seen) for t in terms if t.formula and weights[t.name] > 0}
  return {name: value for name, value in values.items() if value is not None}
