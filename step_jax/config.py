"""Configurations: creates, changes, checks, writes and reads them.

A stage's fields are declared in `configs/<stage>.py` (see `step_jax.fields`); each such file has
`get_config(arg)`, where `arg` names a data set and options, as in
`configs/translate.py:facades,size=64,features=squeezenet1_1`.
"""

from collections.abc import Mapping
import functools
import importlib.util
import json
import pathlib
import traceback
import types
from typing import Any

import ml_collections

from step_jax import config_values, fields, files, untrusted
from step_jax.config_values import Options, Source, choose
from step_jax.errors import ConfigError, RunError, suggestion
from step_jax.fields import DATASETS, FEATURES

__all__ = [
  'ConfigDict', 'DATASETS', 'FEATURES', 'FILE', 'FILES', 'Options', 'Source', 'check_names',
  'choose', 'demand', 'differences', 'flatten', 'following', 'is_ours', 'load', 'make', 'read',
  'save', 'set_field', 'set_kimg', 'stage_file', 'stage_module', 'validate',
]  # fmt: skip

ConfigDict = ml_collections.ConfigDict

FILE = 'config.json'
# Stage -> configuration file, for stages of methods outside of this package.
FILES: dict[str, str] = {}
# Fields of user-defined methods, by method, if their files declare them.
_FIELDS: dict[str, Mapping[str, fields.Field]] = {}


def make(
  declared: Mapping[str, fields.Field],
  arg: str | None = None,
  presets: Mapping[str, Any] | None = None,
) -> ConfigDict:
  """Creates a configuration from declared fields, with their defaults and the settings of `arg`.

  Args:
    declared: dotted name -> field.
    arg: see `Options`.
    presets: presets of the method, see `methods.Method`.

  Raises:
    ConfigError: see `Options.parse`; or there is no such preset.
  """
  options = Options.parse(arg)
  if not is_ours(declared['method'].default):
    _FIELDS[declared['method'].default] = declared
  values = {name: field.default for name, field in declared.items()} | {'arg': arg or ''}
  settings = dict(DATASETS.get(options.name, {}))
  if options.size:
    square = (options.size, options.size)
    settings.update(resize=options.size, crop=square, eval_crop=square)
  chosen = choose(presets or {}, options.preset, 'preset').fields if options.preset else {}
  chosen = chosen.get(declared['stage'].default, {})
  net = FEATURES.get(options.features, {})
  for group, changes in (('data', settings), ('mining', settings), ('', chosen), ('features', net)):
    named = {f'{group}.{name}' if group else name: value for name, value in changes.items()}
    values |= {name: value for name, value in named.items() if name in declared}
  tree: dict[str, Any] = {}
  for name, value in values.items():
    group, _, leaf = name.rpartition('.')
    (tree.setdefault(group, {}) if group else tree)[leaf] = value
  return ConfigDict(tree)


def load(file: str) -> ConfigDict:
  """Loads `FILE.py` or `FILE.py:ARG` as a locked configuration, with ARG in the field `arg`.

  Raises:
    ConfigError: there is no such file, the argument is not valid, or its method has no such field.
  """
  path, _, arg = file.partition(':')
  if not pathlib.Path(path).is_file():
    raise ConfigError(f'{path}: no such configuration file: see configs/')
  try:
    config = _module(path).get_config(arg or None)
  except (AttributeError, KeyError, TypeError) as error:
    # The message of ml_collections for a missing field or a wrong type is helpful.
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if not frame.f_globals['__name__'].startswith('ml_collections.'):
      raise
    raise ConfigError(f'{path}: {" ".join(str(error.args[0]).split())}') from None
  with config.unlocked():
    config.arg = arg
  try:
    check_names(config)
  except ConfigError as error:
    raise ConfigError(f'{path}: {error}') from None
  return config.lock()


def _module(path: str) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location('step_jax_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@functools.cache
def stage_module(stage: str) -> types.ModuleType:
  """Configuration file of a stage, as a module; its `FIELDS` map dotted names to fields."""
  return _module(stage_file(stage))


def is_ours(stage: str) -> bool:
  """Whether the configuration file of a stage is in `configs/`."""
  return stage in _stage_files()


def stage_file(stage: str) -> str:
  """Path of the configuration file of a stage, in a checkout or an installed package."""
  return FILES.get(stage) or str(_stage_files()[stage])


@functools.cache
def _stage_files() -> Mapping[str, pathlib.Path]:
  here = pathlib.Path(__file__).parent
  folder = next(path for path in (here / 'configs', here.parent / 'configs') if path.is_dir())
  return {path.stem: path for path in folder.glob('*.py')}


def set_field(config: ConfigDict, field: str, text: str) -> None:
  """Sets a field from the command line.

  Args:
    config: configuration, changed in place.
    field: dotted path, e.g. `optimizer.generator_lr`.
    text: the value; tuples as `64,64` or `(64, 64)`.

  Raises:
    ConfigError: there is no such field, or the text does not fit its type.
  """
  *path, name = field.split('.')
  node = config
  for part in [*path, name]:
    if not isinstance(node, ConfigDict) or part not in node:
      raise _unknown(field, [key for key, _ in flatten(config)])
    parent, node = node, node[part]
  if isinstance(node, ConfigDict):
    raise ConfigError(f'config field {field!r} is a group: set one of {", ".join(node)}')
  parent[name] = config_values.parse(f'config field {field}', text, node)


def _unknown(field: str, names: list[str]) -> ConfigError:
  return ConfigError(f'config field {field!r} is unknown: {suggestion(field, names, "fields are")}')


def following(stage: str, before: ConfigDict, options: str = '') -> ConfigDict:
  """The configuration of a stage that continues another one.

  It inherits the fields of data, feature network and networks, except those that the options
  change.

  Args:
    stage: the new stage.
    before: configuration of the stage that it continues.
    options: argument of a configuration file: data set, `size` and `features`. Options that
      `before` already had change nothing, so fields that were set there by hand are kept.
  """
  old = load(f'{stage_file(stage)}:{before.arg}')
  config = load(f'{stage_file(stage)}:{config_values.merged(before.arg, options)}')
  groups = ['data', 'model']
  # Taps, their weights and the weights file belong to one network.
  if config.get('features') == old.get('features'):
    groups.append('features')
  for group in groups:
    for field in config.get(group, {}):
      if field in before.get(group, {}) and config[group][field] == old[group][field]:
        config[group][field] = before[group][field]
  return config


def set_kimg(config: ConfigDict, kimg: float) -> None:
  """Sets the length of a stage in thousands of images; scales the constant part of the schedule.

  Raises:
    ConfigError: the stage counts epochs, or the length is not valid.
  """
  schedule = config.schedule
  if 'total_kimg' not in schedule:
    raise ConfigError('--kimg: this stage counts epochs: use --config.schedule.epochs=N')
  problem = fields.SHARED['schedule.total_kimg'].problem(kimg)
  if problem:
    raise ConfigError(f'--kimg {kimg:g}: {problem}')
  if 'fixed_kimg' in schedule:
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
  """Checks that a configuration of one of our methods has exactly the fields of that method.

  Raises:
    ConfigError: there is an unknown field, or one is missing.
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
      raise ConfigError(f'config field {name} is missing: start from those of configs/')


def _declared(config: ConfigDict) -> Mapping[str, fields.Field]:
  """Fields of the method of a configuration; empty if a user-defined method declares none."""
  method = str(config.get('method'))
  return stage_module(method).FIELDS if is_ours(method) else _FIELDS.get(method, {})


def demand(condition: Any, field: str, value: Any, remedy: str) -> None:
  """Raises a ConfigError about a field unless the condition holds."""
  if not condition:
    raise ConfigError(f'config field {field}={" ".join(repr(value).split())}: {remedy}')


def validate(config: ConfigDict) -> None:
  """Checks a configuration before anything is read or compiled.

  Raises:
    ConfigError: a value is not valid.
  """

  check_names(config)
  values = {'stage': None, 'method': None, **dict(flatten(config))}
  declared = {**fields.SHARED, **_declared(config)}
  for name, value in values.items():
    # Undeclared fields of user-defined methods have the type of their value.
    problem = declared.get(name, fields.Field(value, '')).problem(value)
    demand(not problem, name, value, problem)
  if 'data.path' in values:
    path = values['data.path']
    demand(path, 'data.path', path, 'give a folder of images, or swatches')
  if 'features.taps' in values:
    from step_jax import models  # Imports JAX.

    taps, net = config.features.taps, config.features.net
    layers = [name for name, _ in models.FEATURE_NETS[net].PLAN]
    demand(set(taps) <= set(layers), 'features.taps', taps, f'{net} has {", ".join(layers)}')
    weights = values.get('features.tap_weights', taps)
    demand(len(weights) == len(taps), 'features.tap_weights', weights, 'give one weight per tap')


def save(config: ConfigDict, folder: files.Path) -> None:
  """Writes a stage's configuration to its folder."""
  text = json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'
  files.write_text(folder / FILE, text)


def read(folder: files.Path) -> ConfigDict:
  """Reads the configuration of a trained stage.

  Raises:
    RunError: it is missing or damaged.
  """
  path = folder / FILE
  if not path.is_file():
    raise RunError(f'{folder}: is not the folder of a trained stage (no {FILE}): train it first')
  try:
    config = ConfigDict(config_values.tuples(untrusted.read_json(path.read_text('utf-8'))))
    check_kinds(config)
    return config
  except (ValueError, TypeError, RecursionError) as error:
    raise untrusted.damaged(
      path,
      error,
      'restore it from a backup, or remove it and resume with the same settings',
    ) from None


def check_kinds(config: ConfigDict) -> None:
  """Checks the types of the fields of our own stages.

  Raises:
    ValueError: a group of fields is missing, or a field has another type.
  """
  if not isinstance(config.get('stage'), str):
    raise ValueError('it names no stage')
  if not is_ours(config.stage):
    return
  for name, field in stage_module(config.stage).FIELDS.items():
    group, _, leaf = name.rpartition('.')
    node = config.get(group) if group else config
    if not isinstance(node, ConfigDict):
      raise ValueError(f'it has no {group}')
    value = node.get(leaf, field.default)
    if not fields.is_a(value, type(field.default)):
      raise ValueError(f'{name} is {value!r}')


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Fields that differ between two configurations: name -> values in `old` and `new`.

  Fields that are missing in `old` are ignored, because an older version did not have them. Fields
  that are missing in `new` have the value `None` there.
  """
  values = dict(flatten(ConfigDict(config_values.tuples(new.to_dict()))))
  return {
    field: (value, values.get(field)) for field, value in flatten(old) if values.get(field) != value
  }
