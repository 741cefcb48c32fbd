"""What the fields of a configuration mean, and which values they may have.

The one place for both: `config.validate` holds values to the rules, `docs/config.md` shows them.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

from step_jax import models


@dataclasses.dataclass(frozen=True)
class Rule:
  """The values that a field may have.

  Attributes:
    text: completes "must be …".
    accepts: value, of the field's type -> whether it may have it.
    choices: the values, where these can be listed.
  """

  text: str
  accepts: Callable[[Any], bool]
  choices: tuple[str, ...] = ()

  def __and__(self, other: 'Rule') -> 'Rule':
    return Rule(
      f'{self.text} and {other.text}', lambda value: self.accepts(value) and other.accepts(value)
    )


def one_of(*choices: str) -> Rule:
  """One of some texts."""
  return Rule(' or '.join(choices), lambda value: value in choices, choices)


def at_least(low: float) -> Rule:
  """Numbers from `low` on."""
  return Rule(f'at least {low}', lambda value: value >= low)


def at_most(high: float) -> Rule:
  """Numbers up to `high`."""
  return Rule(f'at most {high}', lambda value: value <= high)


def above(low: float) -> Rule:
  """Numbers greater than `low`."""
  return Rule(f'above {low}', lambda value: value > low)


def below(high: float) -> Rule:
  """Numbers less than `high`."""
  return Rule(f'below {high}', lambda value: value < high)


def each(kind: type, rule: Rule, what: str, least: int = 0) -> Rule:
  """Tuples of at least so many values of one type, each within a rule."""
  return Rule(
    f'{what}, each {rule.text}',
    lambda values: (
      len(values) >= least and all(is_a(value, kind) and rule.accepts(value) for value in values)
    ),
  )


def is_a(value: Any, kind: type) -> bool:
  """Whether a value is of a field's type: a whole number is a float too, nan and inf are not."""
  if kind is float:
    return is_a(value, int) or isinstance(value, float) and math.isfinite(value)
  if kind is tuple:
    return isinstance(value, tuple | list)
  return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_size(smallest: int, whole: bool = False) -> Callable[[Any], bool]:
  def accepts(size):
    if len(size) != 2 or not all(is_a(side, int) for side in size):
      return False
    return min(size) >= smallest or whole and tuple(size) == (0, 0)

  return accepts


def _is_rescale(pairs: Any) -> bool:
  return all(
    is_a(pair, tuple)
    and len(pair) == 2
    and all(is_a(number, float) for number in pair)
    and 0 <= pair[0] <= 1 <= pair[1]
    for pair in pairs
  )


_NAME = Rule('a name', bool)
_TEXT = Rule('text', lambda value: True)
_COUNT = at_least(1)
_WEIGHT = at_least(0)
_SEED = at_least(0) & below(2**32)
_SHARE = at_least(0) & below(1)
# The style encoder's smallest size.
_CROP = Rule('a height and a width of at least 16', _is_size(16))
_EVAL_CROP = Rule('a height and a width of at least 16, or 0, 0', _is_size(16, whole=True))
_RESCALE = Rule('pairs of a probability and a factor of at least 1', _is_rescale)


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a configuration.

  Attributes:
    meaning: what it does, in what unit.
    rule: the values that it may have, beyond being of its type.
  """

  meaning: str
  rule: Rule = _TEXT


# Groups in the order in which they are explained; the empty name stands for fields of no group.
GROUPS = {
  '': 'The run',
  'data': 'Pictures',
  'features': 'The feature net',
  'mining': 'Triplets',
  'model': 'Networks',
  'loss': 'Loss weights',
  'optimizer': 'Optimisers',
  'schedule': 'Length',
  'imle': 'The mapper',
  'every': 'Intervals',
}

# What a group has to say beyond its fields.
NOTES = {
  'loss': 'A term exists exactly when its weight is above zero. For pairs `a` and `b` with styles '
  '`z_a` and `z_b`, direct pictures are `G(a, z_a)`, swapped ones `G(a, z_b)`, cyclic ones '
  '`G(a, E(G(b, z_a)))`, random ones `G(a, z)` with `z` drawn from N(0, I).',
}

FIELDS = {
  'arg': Field(
    'argument that the configuration file was given: data set, and `size`, `features`, `preset`'
  ),
  'stage': Field('name of the stage, and of its folder in the work directory', _NAME),
  'method': Field('what the stage trains; see [extending.md](extending.md)', _NAME),
  'init_from': Field(
    'stage whose networks this one starts from: a name in the same work directory, or a path; '
    'empty: from scratch'
  ),
  'train_encoder': Field('whether the style encoder is trained along with the generator'),
  'seed': Field('all that is random derives from it and the number of the step', _SEED),
  'dtype': Field(
    'compute type of the networks; parameters and losses are float32', one_of('float32', 'bfloat16')
  ),
  'remat': Field(
    'whether blocks compute their activations again in the backward pass: less memory, more time'
  ),
  'fsdp': Field(
    'whether parameters, averages and optimisers are split over the devices, not copied: less '
    'memory on each for big networks, at the price of gathering them in every step'
  ),
  'batch_size': Field('pictures a step over all devices (codes, for the mapper)', _COUNT),
  'ema_decay': Field('of the moving averages; rises to this over the first steps', _SHARE),
  'best_metric': Field(
    'validation score, lower is better, by which the best checkpoint is kept beside the latest',
    _NAME,
  ),
  'eval_pictures': Field(
    'validation pictures that are scored during training; `step-jax evaluate` takes all',
    _COUNT,
  ),
  'data.path': Field('folder of pictures, prepared or not; or `swatches`'),
  'data.layout': Field(
    'how the pictures lie; see [data.md](data.md)',
    one_of('auto', 'side_by_side', 'two_folders', 'unpaired'),
  ),
  'data.direction': Field('which picture of a pair is the source', one_of('AtoB', 'BtoA')),
  'data.val_fraction': Field(
    'part of the pictures that is held out where there is no `val` folder',
    above(0) & below(1),
  ),
  'data.resize': Field(
    'pictures are scaled so that the shorter side has so many px; 0: not at all',
    at_least(0),
  ),
  'data.crop': Field(
    'height and width of training crops, px; multiples of 8 for the generator', _CROP
  ),
  'data.eval_crop': Field(
    'height and width of the middle crop for validation, px; 0, 0: whole', _EVAL_CROP
  ),
  'data.rescale': Field(
    'pairs of probability and factor: so often a pair is enlarged by that much',
    _RESCALE,
  ),
  'data.flip': Field('whether half of the pairs are mirrored left to right'),
  'data.scene': Field(
    'regular expression whose first group, in the name of a picture, is its scene; positives of '
    'triplets then come from other scenes'
  ),
  'data.unreadable': Field('what to do about a record that cannot be read', one_of('stop', 'skip')),
  'features.net': Field(
    'frozen net behind style distance and perceptual loss', one_of(*models.FEATURE_NETS)
  ),
  'features.taps': Field(
    'its layers that are looked at', each(str, _NAME, 'one or more texts', least=1)
  ),
  'features.tap_weights': Field(
    'how much each tap counts in the perceptual loss', each(float, _WEIGHT, 'numbers')
  ),
  'features.weights': Field(
    'file of its weights; empty: the one in the store (`step-jax weights get`); `random`: untrained'
  ),
  'mining.num_nearest': Field('positives are drawn from so many of the nearest in style', _COUNT),
  'mining.num_farthest': Field('negatives are drawn from so many of the farthest', _COUNT),
  'mining.projection': Field(
    'entries that style vectors are reduced to, for very large sets; 0: whole vectors',
    at_least(0),
  ),
  'model.z_dim': Field('length of a style code', at_least(0)),
  'model.encoder_width': Field('channels of the first layer of the style encoder', _COUNT),
  'model.generator_width': Field('channels of the first layer of the generator', _COUNT),
  'model.discriminator_width': Field('channels of the first layer of each discriminator', _COUNT),
  'model.num_scales': Field(
    'scales at which a discriminator judges, each half the one before', _COUNT
  ),
  'model.pixel_norm': Field('whether pixel norm follows each block of the style encoder'),
  'model.skip': Field("whether the decoder also reads the content encoder's maps"),
  'model.code_everywhere': Field('whether every block of the decoder reads the code, or the first'),
  'model.variational': Field(
    "whether training draws codes around the encoder's mean; else their noise is fixed at one"
  ),
  'model.mapper_hidden': Field(
    'widths of the hidden layers of the mapper', each(int, _COUNT, 'integers')
  ),
  'loss.triplet': Field('hinge on squared distances of codes', _WEIGHT),
  'loss.margin': Field(
    'of that hinge, not a weight: a negative must be farther by so much', _WEIGHT
  ),
  'loss.z_l2': Field('mean square of the codes', _WEIGHT),
  'loss.recon_perceptual': Field(
    'perceptual distance of direct pictures to their targets', _WEIGHT
  ),
  'loss.recon_l1': Field('mean absolute difference of the same, in [-1, 1]', _WEIGHT),
  'loss.cycle_perceptual': Field('as `recon_perceptual`, of cyclic pictures', _WEIGHT),
  'loss.cycle_l1': Field('as `recon_l1`, of cyclic pictures', _WEIGHT),
  'loss.gan': Field('how much the generator heeds the discriminators', _WEIGHT),
  'loss.d_direct': Field('how much the discriminator judges direct pictures', _WEIGHT),
  'loss.d_cycle': Field('… cyclic pictures', _WEIGHT),
  'loss.d_swap': Field('… swapped pictures', _WEIGHT),
  'loss.d_random': Field('… random pictures', _WEIGHT),
  'loss.d2_random': Field('the same by a discriminator of their own', _WEIGHT),
  'loss.z_kl': Field('KL divergence of codes from N(0, I), summed over the batch', _WEIGHT),
  'loss.z_recon': Field(
    'mean absolute error of codes that are read back from swapped pictures', _WEIGHT
  ),
  'loss.z_random_recon': Field('… from random pictures', _WEIGHT),
  'optimizer.encoder_lr': Field('learning rate of the style encoder in pre-training', at_least(0)),
  'optimizer.generator_lr': Field(
    'of the generator, and of the style encoder where that is trained along',
    at_least(0),
  ),
  'optimizer.discriminator_lr': Field('of the discriminators', at_least(0)),
  'optimizer.latent_lr': Field(
    "of the generator's second optimiser, for the terms of swapped and random codes",
    at_least(0),
  ),
  'optimizer.mapper_lr': Field('of the mapper', at_least(0)),
  'optimizer.b1': Field("Adam's decay of first moments", _SHARE),
  'optimizer.b2': Field("Adam's decay of second moments", _SHARE),
  'schedule.total_kimg': Field('length, in thousands of pictures', at_least(0.001)),
  'schedule.fixed_kimg': Field(
    '… of which so many at the full learning rate; then it falls', at_least(0)
  ),
  'schedule.epochs': Field('length, in passes over the codes', _COUNT),
  'imle.max_codes': Field('codes beyond so many are left out, a random choice', _COUNT),
  'imle.standardize': Field(
    'whether the mapper is trained on codes scaled to mean 0 and standard deviation 1 in every '
    'dimension; false: on the codes as they are, as the original does'
  ),
  'imle.sample_factor': Field('samples that are drawn for each code, to find the nearest', _COUNT),
  'imle.staleness': Field('epochs for which a pairing is kept', _COUNT),
  'imle.noise': Field('standard deviation of what is added to paired latents', at_least(0)),
  'imle.decay': Field('the learning rate is multiplied by it', above(0) & at_most(1)),
  'imle.decay_epochs': Field('… after every so many epochs', _COUNT),
  'every.log': Field('steps between lines of metrics (epochs, for the mapper)', _COUNT),
  'every.checkpoint': Field('… between checkpoints', _COUNT),
  'every.evaluate': Field('… between evaluations', _COUNT),
}
