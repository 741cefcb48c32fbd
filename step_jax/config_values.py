"""Parses names, options and field values of configurations from the command line."""

import ast
from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from step_jax import fields
from step_jax.errors import ConfigError, suggestion
from step_jax.fields import DATASETS, FEATURES


@dataclasses.dataclass(frozen=True)
class Source:
  """Images: their path, and their settings as a key of `DATASETS`; either may be empty."""

  path: str
  name: str = ''

  @classmethod
  def parse(cls, text: str) -> 'Source':
    """Parses `PATH`, `NAME=PATH`, or the name of a known data set.

    Raises:
      ConfigError: no data set has that name.
    """
    name, equals, path = text.partition('=')
    if not equals or '/' in name:
      return cls('', text) if text in DATASETS else cls(text)
    choose(DATASETS, name, 'data set')
    return cls(path, name)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options in the argument of a configuration file.

  Attributes:
    name: data set, a key of `DATASETS`; empty for your own folder.
    size: side of the square images to resize to and train on; 0 keeps the sizes of the data set.
    features: feature network, a key of `FEATURES`; empty: the default of the stage.
    preset: preset of the method.
  """

  name: str = ''
  size: int = 0
  features: str = ''
  preset: str = ''

  @classmethod
  def parse(cls, arg: str | None) -> 'Options':
    """Parses `NAME,option=value,…`.

    Raises:
      ConfigError: an unknown data set, option, or feature network.
    """
    first, *rest = (arg or '').split(',')
    if '=' in first:
      first, rest = '', [first, *rest]
    options = {}
    for item in rest:
      key, _, value = item.partition('=')
      if key not in ('size', 'features', 'preset'):
        raise ConfigError(f'option {key!r} of {arg!r} is unknown: use size, features or preset')
      options[key] = parse(f'option {key}', value, getattr(cls, key))
    parsed = cls(name=first, **options)
    if parsed.name:
      choose(DATASETS, parsed.name, 'data set')
    if parsed.features:
      choose(FEATURES, parsed.features, 'features')
    return parsed


def parse(what: str, text: str, old: Any) -> Any:
  """Parses text as a value of the type of `old`.

  Args:
    what: name of the value, for messages.
    text: the value; tuples as `64,64` or `(64, 64)`.
    old: the value to replace.

  Raises:
    ConfigError: the text is not of that type.
  """
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
    return tuples(value if isinstance(value, tuple | list) else (value,))
  except (ValueError, KeyError, SyntaxError, RecursionError, MemoryError):
    kind = fields.KINDS[type(old)] + (f' like {old}' if isinstance(old, tuple) else '')
    raise ConfigError(f'{what}={text!r} is not {kind}') from None


def merged(arg: str, options: str) -> str:
  """Merges two arguments of configuration files; the options of the second one take precedence."""
  items = {}
  for text in (arg, options):
    for item in filter(None, text.split(',')):
      key, equals, value = item.partition('=')
      items.update({key: value} if equals else {'': item})
  name = items.pop('', '')
  return ','.join([name, *(f'{key}={value}' for key, value in items.items())])


def tuples(value: Any) -> Any:
  """Converts lists (from JSON) to the tuples of configurations, recursively."""
  if isinstance(value, list | tuple):
    return tuple(tuples(item) for item in value)
  if isinstance(value, dict):
    return {key: tuples(item) for key, item in value.items()}
  return value


def choose(choices: Mapping[str, Any], name: str, what: str) -> Any:
  """`choices[name]`, or a ConfigError that suggests a name."""
  if name not in choices:
    raise ConfigError(f'{what} {name!r} is unknown: {suggestion(name, choices)}')
  return choices[name]
