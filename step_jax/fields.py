"""Fields of configurations; a declaration gives the default, meaning and valid values of a field.

Fields shared by methods are declared here, those of one stage in `configs/<stage>.py`.
Configurations are created (`config.make`) and checked (`config.validate`) from these declarations,
and `docs/config.md` is generated from them.
"""

from collections.abc import Callable, Container, Mapping
import dataclasses
import math
import operator
from typing import Any

_COMPARISONS = {
  'at least': operator.ge, 'at most': operator.le, 'above': operator.gt, 'below': operator.lt
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rule:
  """Valid values of a field.

  Attributes:
    text: completes "must be …".
    accepts: value, of the field's type -> whether it is valid.
    choices: all valid values, if they can be listed.
    advice: what to do about an invalid value, if "must be …" does not say it.
  """

  text: str
  accepts: Callable[[Any], bool]
  choices: tuple[str, ...] = ()
  advice: str = ''


def one_of(*choices: str) -> Rule:
  """One of the given strings."""
  return Rule(' or '.join(choices), lambda value: value in choices, choices)


def number(*bounds: str) -> Rule:
  """Numbers within bounds, each written as `at least 0`, `at most 1`, `above 0` or `below 1`."""
  parts = [bound.rpartition(' ') for bound in bounds]
  return Rule(
    ' and '.join(bounds),
    lambda value: all(_COMPARISONS[name](value, float(limit)) for name, _, limit in parts),
  )


def each(kind: type, rule: Rule, what: str, lengths: Container = range(1, 1000)) -> Rule:
  """Tuples whose length is in `lengths`, of values of type `kind` that each satisfy `rule`."""
  return Rule(
    f'{what}, each {rule.text}',
    lambda values: (
      len(values) in lengths and all(is_a(value, kind) and rule.accepts(value) for value in values)
    ),
  )


def is_a(value: Any, kind: type) -> bool:
  """Whether a value has the type of a field; integers also count as floats, nan and inf do not."""
  if kind is float:
    return is_a(value, int) or isinstance(value, float) and math.isfinite(value)
  if kind is tuple:
    return isinstance(value, tuple | list)
  return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


# Layouts of image folders, see `data.folders`.
LAYOUTS = ('auto', 'side_by_side', 'two_folders', 'images_labels', 'unpaired')

NAME = Rule('a name', bool)
TEXT = Rule('text', lambda value: True)
COUNT = number('at least 1')
NOT_NEGATIVE = number('at least 0')
SHARE = number('at least 0', 'below 1')
# The minimum is the smallest input of the style encoder.
_CROP = each(int, number('at least 16'), 'a height and a width', (2,))
_EVAL_CROP = Rule(
  f'{_CROP.text}, or 0, 0', lambda size: tuple(size) == (0, 0) or _CROP.accepts(size)
)


_PAIR = Rule(
  'two classes', lambda pair: len(pair) == 2 and all(is_a(x, int) and 0 <= x < 255 for x in pair)
)
_STEPS = Rule(
  'a first and a last step, such as 100,110',
  lambda steps: (
    len(steps) == 0
    or (len(steps) == 2 and all(is_a(n, int) for n in steps) and 1 <= steps[0] <= steps[1])
  ),
)


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a configuration.

  Attributes:
    default: a bool, an int, a float, a string, or a tuple of these; also gives the field's type.
    meaning: description with the unit.
    rule: valid values of this type.
  """

  default: Any
  meaning: str
  rule: Rule = TEXT

  def problem(self, value: Any) -> str:
    """What a valid value must be, if `value` is not valid; otherwise empty."""
    kind = type(self.default)
    if not is_a(value, kind):
      return f'must be {KINDS[kind]}'
    if not self.rule.accepts(value):
      return f'must be {self.rule.text}' + (f': {self.rule.advice}' if self.rule.advice else '')
    return ''


KINDS = {
  bool: 'true or false', int: 'an integer', float: 'a finite number', str: 'text', tuple: 'a tuple'
}  # fmt: skip

# Defaults that differ per data set: crop sizes, halves, rescaling and scene rule of the original.
# A is the left half of an image, B the right one.
DATASETS = {
  'swatches': dict(path='swatches', resize=64, crop=(64, 64), palette='swatches', classes=5),
  'edges2shoes': dict(path='data/edges2shoes', eval_crop=(256, 256)),
  'edges2handbags': dict(path='data/edges2handbags', eval_crop=(256, 256)),
  'night2day': dict(path='data/night2day', eval_crop=(256, 256), rescale=((0.5, 1.25),)),
  'facades': dict(
    path='data/facades',
    direction='BtoA',
    eval_crop=(256, 256),
    rescale=((0.5, 1.25), (0.25, 1.5)),
    palette='facades',
    classes=12,
  ),
  'maps': dict(path='data/maps', direction='BtoA', eval_crop=(512, 512)),
  'cityscapes': dict(path='data/cityscapes', direction='BtoA', eval_crop=(256, 256)),
  'space_needle_timelapse': dict(
    path='data/space_needle_timelapse',
    direction='BtoA',
    eval_crop=(512, 512),
    scene=r'(.)\.[^.]*$',
    num_nearest=15,
    num_farthest=78,
  ),
  # Swatches with one style per class.
  'swatches_regional': dict(
    path='swatches_regional', resize=64, crop=(64, 64), palette='swatches', classes=5
  ),
  # Faces with the 19 classes of CelebAMask-HQ: eyes, brows and ears are left and right.
  'celebamask_hq': dict(
    path='data/celebamask_hq',
    eval_crop=(256, 256),
    palette='index',
    classes=19,
    flip_swaps=((4, 5), (6, 7), (8, 9)),
  ),
  # CMP facades with the label maps of that project, which count classes from 1.
  'cmp_facade': dict(
    path='data/cmp_facade', eval_crop=(256, 256), palette='index_from_1', classes=12
  ),
}

# Feature network -> its taps and their weights in the perceptual loss. VGG16 has those of StEP. For
# the other networks, weights were chosen so that on pairs of photographs a tap contributes about as
# much as VGG16's tap of the same depth.
FEATURES = {
  'vgg16': dict(
    net='vgg16',
    taps=('conv1_2', 'conv2_2', 'conv3_2', 'conv4_2', 'conv5_2'),
    tap_weights=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0),
  ),
  'vgg16_low': dict(net='vgg16', taps=('conv1_2', 'conv2_2'), tap_weights=(1 / 32, 1 / 16)),
  # SuperStyleNet's, with its weights.
  'vgg19': dict(
    net='vgg19',
    taps=('conv1_1', 'conv2_1', 'conv3_1', 'conv4_1', 'conv5_1'),
    tap_weights=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0),
  ),
  'squeezenet1_1': dict(
    net='squeezenet1_1',
    taps=('conv1', 'fire3', 'fire5', 'fire7', 'fire9'),
    tap_weights=(1 / 2, 1 / 4, 1 / 4, 1 / 2, 2.0),
  ),
  'alexnet': dict(
    net='alexnet',
    taps=('conv1', 'conv2', 'conv3', 'conv4', 'conv5'),
    tap_weights=(1 / 2, 1 / 4, 1 / 4, 1 / 2, 1.0),
  ),
}

# `models.FEATURE_NETS`, which would import JAX.
NETS = ('vgg16', 'vgg19', 'squeezenet1_1', 'alexnet')

_VGG16 = FEATURES['vgg16']

# Fields of every stage.
_ALWAYS = {
  'arg': Field(
    '', 'argument of the configuration file: data set, and `size`, `features`, `preset`'
  ),
  'stage': Field('', 'name of the stage, and of its folder in the work directory', NAME),
  'method': Field('', 'what the stage trains; see [extending.md](extending.md)', NAME),
  'seed': Field(
    0,
    'random seed; every random number derives from it and the step number',
    number('at least 0', 'below 4294967296'),
  ),
  'dtype': Field(
    'float32',
    'compute type of the networks; parameters and losses are float32',
    one_of('float32', 'bfloat16'),
  ),
  'profile': Field(
    (),
    'first and last step to trace with `jax.profiler`; the trace is written to `profile/` in the '
    'folder of the stage; none: no trace',
    _STEPS,
  ),
  'wandb': Field(
    '',
    'Weights & Biases project to send metrics, images and configuration to, in addition to the '
    'files in the folder of the stage; empty: none',
  ),
  'batch_size': Field(8, 'images per step over all devices (mapper: codes)', COUNT),
  'best_metric': Field(
    '',
    'validation score that selects the best checkpoint; lower is better',
    NAME,
  ),
  'every.log': Field(50, 'steps between log entries (mapper: epochs)', COUNT),
  'every.checkpoint': Field(1000, 'steps between checkpoints (mapper: epochs)', COUNT),
  'every.evaluate': Field(1000, 'steps between evaluations (mapper: epochs)', COUNT),
}
# Fields of many stages. Data sets and feature networks change some defaults.
SHARED = _ALWAYS | {
  'init_from': Field(
    '',
    'stage whose networks to start from: the name of a stage in the same work directory, or a '
    'path; empty: train from scratch',
  ),
  'eval_pictures': Field(
    128,
    'number of validation images to score during training; `step-jax evaluate` uses all',
    COUNT,
  ),
  'remat': Field(
    False,
    'whether to recompute activations in the backward pass, which needs less memory and more time',
  ),
  'fsdp': Field(
    False,
    'whether to shard parameters, moving averages and optimizer states over the devices instead '
    'of replicating them; big networks then need less memory per device, but are gathered in every '
    'step',
  ),
  'data.path': Field('', 'folder of images, or prepared data set; or `swatches`'),
  'data.layout': Field(
    'auto',
    'how the images are arranged in the folder; see [data.md](data.md)',
    one_of(*LAYOUTS),
  ),
  'data.direction': Field('AtoB', 'which image of a pair is the source', one_of('AtoB', 'BtoA')),
  'data.val_fraction': Field(
    0.1,
    'fraction of the images to hold out if there is no `val` folder',
    number('above 0', 'below 1'),
  ),
  'data.resize': Field(
    0, 'length that the shorter side of images is scaled to, px; 0: no scaling', NOT_NEGATIVE
  ),
  'data.crop': Field(
    (256, 256), 'height and width of training crops, px; StEP needs multiples of 8', _CROP
  ),
  'data.eval_crop': Field(
    (0, 0), 'height and width of the center crop for validation, px; 0, 0: no crop', _EVAL_CROP
  ),
  'data.flip': Field(False, 'whether to mirror half of the examples left to right'),
  'data.palette': Field(
    'index',
    'how label maps encode classes: `index` (numbers from 0), `index_from_1`, `index_void` (255 '
    'means no class and becomes the last class), `facades`, `swatches`, or a file with one '
    '`R G B` per line; see [data.md](data.md#label-maps)',
    NAME,
  ),
  'data.classes': Field(
    0, 'number of classes of label maps, at most 255', number('at least 0', 'at most 255')
  ),
  'data.flip_swaps': Field(
    (),
    'pairs of classes to swap when an image is mirrored, such as left and right eye: '
    '`((4,5),(6,7))`',
    each(tuple, _PAIR, 'pairs', range(128)),
  ),
  'data.unreadable': Field(
    'stop', 'what to do about a record that cannot be read', one_of('stop', 'skip')
  ),
  'features.net': Field(
    _VGG16['net'],
    'frozen feature network for style distances and the perceptual loss',
    one_of(*NETS),
  ),
  'features.taps': Field(
    _VGG16['taps'],
    'layers of `features.net` whose outputs are used',
    each(str, NAME, 'one or more texts'),
  ),
  'features.weights': Field(
    '',
    'file with the weights of `features.net`; empty: the file from `step-jax weights get`; '
    '`random`: random weights',
  ),
  'optimizer.b1': Field(0.0, 'decay rate of the first moment (Adam)', SHARE),
  'optimizer.b2': Field(0.99, 'decay rate of the second moment (Adam)', SHARE),
  'schedule.total_kimg': Field(
    250.0, 'length of training in thousands of images', number('at least 0.001')
  ),
  'schedule.fixed_kimg': Field(
    150.0,
    'thousands of images before the learning rate starts to decay',
    NOT_NEGATIVE,
  ),
}

# Fields of the group `data` needed to read images.
DATA = ('path', 'layout', 'direction', 'val_fraction', 'resize', 'unreadable')
# Additional fields needed to read label maps.
LABELS = ('palette', 'classes', 'flip_swaps')


def shared(*names: str, **choices: Any) -> dict[str, Field]:
  """The fields of every stage, and some of `SHARED`; see `take` for the arguments."""
  return take(SHARED, *_ALWAYS, *names, **choices)


def take(declared: Mapping[str, Field], *names: str, **choices: Any) -> dict[str, Field]:
  """Selects declared fields.

  Args:
    declared: dotted name -> field.
    names: names of fields to take unchanged.
    choices: fields to take with another default (`batch_size=12`), or groups with other defaults
      (`every=dict(log=50)`) or unchanged (`data=('path', 'crop')`).
  """
  selected = {name: declared[name] for name in names}
  for name, choice in choices.items():
    if name in declared:
      defaults = {name: choice}
    elif isinstance(choice, dict):
      defaults = {f'{name}.{leaf}': default for leaf, default in choice.items()}
    else:
      defaults = {f'{name}.{leaf}': declared[f'{name}.{leaf}'].default for leaf in choice}
    for field, default in defaults.items():
      selected[field] = dataclasses.replace(declared[field], default=default)
  return selected


# Groups in the order of the documentation; the empty name is for fields without a group.
GROUPS = {
  '': 'The run',
  'data': 'Data',
  'features': 'Feature network',
  'mining': 'Triplets',
  'codes': 'Style codes of regions',
  'model': 'Networks',
  'loss': 'Loss weights',
  'optimizer': 'Optimizers',
  'schedule': 'Length',
  'interval': 'Lazy regularisation',
  'imle': 'The mapper',
  'every': 'Intervals',
}

# Introductions of groups.
NOTES = {
  'loss': 'A term is computed only if its weight is above zero. For pairs `a` and `b` with styles '
  '`z_a` and `z_b`, StEP generates four kinds of images: direct `G(a, z_a)`, swapped `G(a, z_b)`, '
  'cyclic `G(a, E(G(b, z_a)))`, and random `G(a, z)` with `z` sampled from N(0, I).',
}
