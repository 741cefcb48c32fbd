"""Configurations: data sets and feature nets by name, and how fields are set, checked and kept.

A stage's own values stand in `configs/<stage>.py`; each such file has `get_config(arg)`, where
`arg` names a data set and options, as in
`configs/translate.py:facades,size=64,features=squeezenet1_1`. What fields mean stands in
`step_jax.fields`, from which `docs/config.md` is made.
"""

import ast
import dataclasses
import difflib
import importlib.util
import json
import math
import pathlib
import traceback
from typing import Any

import ml_collections

from step_jax import fields, files, models, untrusted
from step_jax.errors import ConfigError, RunError

ConfigDict = ml_collections.ConfigDict

STAGES = ('pretrain', 'translate', 'finetune', 'mapper')
FILE = 'config.json'
_KINDS = {
  bool: 'true or false', int: 'an integer', float: 'a finite number', str: 'text', tuple: 'a tuple'
}  # fmt: skip

# Crop sizes, halves, rescaling and scene rule of the original, by name of its data sets; the first
# entry stands for any other folder. A is the left half of a picture, B the right one. A crop of
# (0, 0) means whole pictures.
DATASETS = {
  '': dict(
    path='',
    layout='auto',
    direction='AtoB',
    val_fraction=0.1,
    resize=0,
    crop=(256, 256),
    eval_crop=(0, 0),
    rescale=(),
    flip=False,
    scene='',
    unreadable='stop',
    num_nearest=5,
    num_farthest=13,
  ),
  'swatches': dict(path='swatches', resize=64, crop=(64, 64)),
  'edges2shoes': dict(path='data/edges2shoes', eval_crop=(256, 256)),
  'edges2handbags': dict(path='data/edges2handbags', eval_crop=(256, 256)),
  'night2day': dict(path='data/night2day', eval_crop=(256, 256), rescale=((0.5, 1.25),)),
  'facades': dict(
    path='data/facades',
    direction='BtoA',
    eval_crop=(256, 256),
    rescale=((0.5, 1.25), (0.25, 1.5)),
  ),
  'maps': dict(path='data/maps', direction='BtoA', eval_crop=(512, 512)),
  'space_needle_timelapse': dict(
    path='data/space_needle_timelapse',
    direction='BtoA',
    eval_crop=(512, 512),
    scene=r'(.)\.[^.]*$',
    num_nearest=15,
    num_farthest=78,
  ),
}

# Feature net -> its taps and how much each counts in the perceptual loss. VGG16's are StEP's; those
# of the other nets were chosen so that a tap counts about as much as VGG16's of the same depth does
# on pairs of photographs.
FEATURES = {
  'vgg16': dict(
    net='vgg16',
    taps=('conv1_2', 'conv2_2', 'conv3_2', 'conv4_2', 'conv5_2'),
    tap_weights=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0),
  ),
  'vgg16_low': dict(net='vgg16', taps=('conv1_2', 'conv2_2'), tap_weights=(1 / 32, 1 / 16)),
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


@dataclasses.dataclass(frozen=True)
class Options:
  """What the argument of a configuration file asks for.

  Attributes:
    name: of the data set in `DATASETS`; empty for a folder of one's own.
    size: resize to, and train on, squares of so many pixels; 0 keeps the data set's own sizes.
    features: of the feature net in `FEATURES`.
    preset: of the method, as `configs/translate.py` lists them.
  """

  name: str = ''
  size: int = 0
  features: str = 'vgg16'
  preset: str = ''

  @classmethod
  def parse(cls, arg: str | None) -> 'Options':
    """Reads `NAME,option=value,…`.

    Raises:
      ConfigError: an unknown data set, option, or feature net.
    """
    first, *rest = (arg or '').split(',')
    if '=' in first:
      first, rest = '', [first, *rest]
    options = {}
    for item in rest:
      key, _, value = item.partition('=')
      if key not in ('size', 'features', 'preset'):
        raise ConfigError(f'option {key!r} of {arg!r} is unknown: use size, features or preset')
      options[key] = _number(key, value) if key == 'size' else value
    found = cls(name=first, **options)
    choose(DATASETS, found.name, 'data set')
    choose(FEATURES, found.features, 'features')
    return found

  def data(self, *fields: str) -> ConfigDict:
    """Those fields of the data set's settings."""
    settings = {**DATASETS[''], **DATASETS[self.name]}
    if self.size:
      square = (self.size, self.size)
      settings.update(resize=self.size, crop=square, eval_crop=square)
    return ConfigDict({field: settings[field] for field in fields})

  def feature_net(self, *fields: str) -> ConfigDict:
    """Those fields of the feature net's settings, and where its weights are.

    `weights` is a file, `random`, or empty for the file in the store (`step-jax weights get`).
    """
    settings = FEATURES[self.features]
    return ConfigDict({**{field: settings[field] for field in fields}, 'weights': ''})


def load(file: str) -> ConfigDict:
  """The configuration of `FILE.py` or `FILE.py:ARG`, locked, with ARG kept in its field `arg`.

  Raises:
    ConfigError: no such file, an argument that it does not take, or a field that its method does
      not have.
  """
  path, _, arg = file.partition(':')
  if not pathlib.Path(path).is_file():
    raise ConfigError(f'{path}: no such configuration file: see configs/')
  try:
    config = _get_config(path, arg)
    check_names(config)
  except ConfigError as error:
    raise ConfigError(f'{path}: {error}') from None
  except (AttributeError, KeyError, TypeError) as error:
    # What ml_collections says of a field that is not there, or of another type, helps by itself.
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if not frame.f_globals['__name__'].startswith('ml_collections.'):
      raise
    raise ConfigError(f'{path}: {" ".join(str(error.args[0]).split())}') from None
  return config.lock()


def _get_config(path: str, arg: str) -> ConfigDict:
  spec = importlib.util.spec_from_file_location('step_jax_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(arg or None)
  with config.unlocked():
    config.arg = arg
  return config


def stage_file(stage: str) -> str:
  """Path of a stage's own configuration file, in a checkout or in an installed package."""
  here = pathlib.Path(__file__).parent
  return str(
    next(
      folder / f'{stage}.py'
      for folder in (here / 'configs', here.parent / 'configs')
      if (folder / f'{stage}.py').is_file()
    )
  )


def set_field(config: ConfigDict, field: str, text: str) -> None:
  """Sets a field from the command line, as the type that it has.

  Args:
    config: changed in place.
    field: dotted path, e.g. `optimizer.generator_lr`.
    text: the value; tuples as `64,64` or `(64, 64)`.

  Raises:
    ConfigError: no such field, or text that is not of its type.
  """
  *path, name = field.split('.')
  node = config
  for part in [*path, name]:
    if not isinstance(node, ConfigDict) or part not in node:
      raise _unknown(field, [key for key, _ in flatten(config)])
    parent, node = node, node[part]
  if isinstance(node, ConfigDict):
    raise ConfigError(f'config field {field!r} is a group: set one of {", ".join(node)}')
  parent[name] = _parse(field, text, node)


def _unknown(field: str, known: list[str]) -> ConfigError:
  near = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
  hint = f'did you mean {near[0]}?' if near else f'fields are {", ".join(known)}'
  return ConfigError(f'config field {field!r} is unknown: {hint}')


def _parse(field: str, text: str, old: Any) -> Any:
  if isinstance(old, str):
    return text
  try:
    if isinstance(old, bool):
      return {'true': True, 'false': False}[text.lower()]
    if isinstance(old, int):
      return int(text)
    if isinstance(old, float):
      value = float(text)
      if not math.isfinite(value):
        raise ValueError(text)
      return value
    value = ast.literal_eval(text)
    return _tuples(value if isinstance(value, tuple | list) else (value,))
  except (ValueError, KeyError, SyntaxError, RecursionError, MemoryError):
    kind = _KINDS[type(old)] + (f' like {old}' if isinstance(old, tuple) else '')
    raise ConfigError(f'config field {field}={text!r} is not {kind}') from None


def following(stage: str, before: ConfigDict, options: str = '') -> ConfigDict:
  """The configuration of a stage that continues another one.

  It shares data, feature net and networks with that stage, field by field, except for fields that
  the options change.

  Args:
    stage: the one that follows.
    before: configuration of the stage that it continues.
    options: as the argument of a configuration file: data set, `size` and `features`. An option
      that `before` was given already changes nothing, so fields set there by hand are kept.
  """
  old = load(f'{stage_file(stage)}:{before.arg}')
  config = load(f'{stage_file(stage)}:{_merged(before.arg, options)}')
  groups = ['data', 'model']
  # Taps, their weights and the net's file belong to one net.
  if config.get('features') == old.get('features'):
    groups.append('features')
  for group in groups:
    for field in config.get(group, {}):
      if field in before.get(group, {}) and config[group][field] == old[group][field]:
        config[group][field] = before[group][field]
  return config


def _merged(arg: str, options: str) -> str:
  """An argument of a configuration file with the options of another one in place of its own."""
  merged = {}
  for text in (arg, options):
    for item in filter(None, text.split(',')):
      key, equals, value = item.partition('=')
      merged.update({key: value} if equals else {'': item})
  name = merged.pop('', '')
  return ','.join([name, *(f'{key}={value}' for key, value in merged.items())])


def set_kimg(config: ConfigDict, kimg: float) -> None:
  """Sets how long a stage trains, in thousands of pictures; its part at full rate keeps its share.

  Raises:
    ConfigError: the stage counts epochs.
  """
  schedule = config.schedule
  if 'total_kimg' not in schedule:
    raise ConfigError('--kimg: this stage counts epochs: use --config.schedule.epochs=N')
  schedule.fixed_kimg = schedule.fixed_kimg / schedule.total_kimg * kimg
  schedule.total_kimg = kimg


def flatten(config: ConfigDict, prefix: str = '') -> list[tuple[str, Any]]:
  """All fields of a configuration as `(dotted path, value)`, in alphabetical order."""
  fields = []
  for name in sorted(config):
    value = config[name]
    if isinstance(value, ConfigDict):
      fields += flatten(value, f'{prefix}{name}.')
    else:
      fields.append((f'{prefix}{name}', value))
  return fields


def check_names(config: ConfigDict) -> None:
  """Checks that a configuration of one of our methods has the fields of that method and no others.

  Raises:
    ConfigError: a field that the method does not have, or one that is missing.
  """
  declared = _declared(config)
  if not declared:
    return
  names = [name for name, _ in flatten(config)]
  for name in names:
    if name not in declared:
      raise _unknown(name, list(declared))
  for name in declared:
    if name not in names:
      file = stage_file(config.method)
      raise ConfigError(f'config field {name} is missing: start from what load({file!r}) returns')


def _declared(config: ConfigDict) -> dict[str, Any]:
  """Fields of a configuration's method with their defaults; none of a method of the user's own."""
  method = config.get('method')
  return dict(flatten(_get_config(stage_file(method), ''))) if method in STAGES else {}


def validate(config: ConfigDict) -> None:
  """Checks what can be checked before anything is read or compiled.

  Raises:
    ConfigError: the field, its value, and what it may be.
  """

  def demand(condition, field, value, remedy):
    if not condition:
      raise ConfigError(f'config field {field}={" ".join(repr(value).split())}: {remedy}')

  for name in ('stage', 'method'):
    demand(isinstance(config.get(name), str), name, config.get(name), 'must be a name')
  check_names(config)
  declared = _declared(config)
  for name, value in flatten(config):
    kind = type(declared.get(name, value))
    demand(fields.is_a(value, kind), name, value, f'must be {_KINDS.get(kind, kind.__name__)}')
    if name in fields.FIELDS:
      rule = fields.FIELDS[name].rule
      demand(rule.accepts(value), name, value, f'must be {rule.text}')
  if 'data' in config:
    path = config.data.path
    demand(path, 'data.path', path, 'give a folder of pictures, or swatches')
  if config.method in ('pretrain', 'mapper'):
    demand(
      config.model.z_dim,
      'model.z_dim',
      config.model.z_dim,
      'must be at least 1: a run without styles (preset pix2pix) has no style encoder to pre-train '
      'and no mapper: train the stage translate alone',
    )
  elif 'model.z_dim' in declared and not config.model.z_dim:
    for name in ('z_l2', 'z_kl', 'z_recon', 'z_random_recon'):
      weight = config.loss[name]
      demand(
        not weight, f'loss.{name}', weight, 'must be 0 where model.z_dim is: there are no codes'
      )
  if 'generator_width' in config.get('model', {}):
    multiple = models.generator.SIZE_MULTIPLE
    demand(
      all(side % multiple == 0 for side in config.data.crop),
      'data.crop',
      config.data.crop,
      f'the generator needs multiples of {multiple}',
    )
  if 'taps' in config.get('features', {}):
    known = [name for name, _ in models.FEATURE_NETS[config.features.net].PLAN]
    for tap in config.features.taps:
      demand(tap in known, 'features.taps', tap, f'{config.features.net} has {", ".join(known)}')
    demand(
      len(config.features.get('tap_weights', config.features.taps)) == len(config.features.taps),
      'features.tap_weights',
      config.features.get('tap_weights'),
      'give one weight a tap',
    )


def save(config: ConfigDict, folder: files.Path) -> None:
  """Writes a stage's configuration to its folder."""
  text = json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'
  files.write_text(folder / FILE, text)


def read(folder: files.Path) -> ConfigDict:
  """The configuration that a stage's folder was trained with.

  Raises:
    RunError: there is none, or it is damaged.
  """
  path = folder / FILE
  if not path.is_file():
    raise RunError(f'{folder}: is not the folder of a trained stage (no {FILE}): train it first')
  try:
    config = ConfigDict(_tuples(untrusted.read_json(path.read_text('utf-8'))))
    _check_kinds(config)
    return config
  except (ValueError, TypeError, RecursionError) as error:
    raise untrusted.damaged(
      path,
      error,
      'bring it back from a copy, or remove it and train on with the settings that it had',
    ) from None


def _check_kinds(config: ConfigDict) -> None:
  """Makes sure that the fields of our own stages, as read, are of the kinds that they have.

  Raises:
    ValueError: a group of fields is missing, or a field is of another kind.
  """
  if not isinstance(config.get('stage'), str):
    raise ValueError('it names no stage')
  if config.stage not in STAGES:
    return
  known = load(stage_file(config.stage))
  for field, wanted in flatten(known):
    node = config
    for part in field.split('.')[:-1]:
      node = node.get(part)
      if not isinstance(node, ConfigDict):
        raise ValueError(f'it has no {part}')
    value = node.get(field.rpartition('.')[2], wanted)
    if not fields.is_a(value, type(wanted)):
      raise ValueError(f'{field} is {value!r}')


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Fields in which two configurations differ: name -> values in `old` and `new`.

  A field that `old` does not have is no difference: it was written by a version that did not know
  it. One that `new` lacks has `None` there.
  """
  values = dict(flatten(ConfigDict(_tuples(new.to_dict()))))
  return {
    field: (value, values.get(field)) for field, value in flatten(old) if values.get(field) != value
  }


def _tuples(value: Any) -> Any:
  """Lists, as JSON has them, as tuples, as configurations have them."""
  if isinstance(value, list | tuple):
    return tuple(_tuples(item) for item in value)
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  return value


def choose(known: dict, name: str, what: str) -> Any:
  """`known[name]`, or a ConfigError that lists what is known."""
  if name not in known:
    names = ', '.join(key for key in known if key)
    raise ConfigError(f'{what} {name!r} is unknown: use one of {names}')
  return known[name]


def _number(key: str, text: str) -> int:
  try:
    return int(text)
  except ValueError:
    raise ConfigError(f'option {key}={text!r} is not an integer') from None
