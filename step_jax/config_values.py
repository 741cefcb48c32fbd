"""What a command line says of a configuration: names, options and the values of fields, as text."""

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
  """Images: where they lie, and which of `DATASETS` gives their settings; either may be empty."""

  path: str
  name: str = ''

  @classmethod
  def parse(cls, text: str) -> 'Source':
    """Reads `PATH`, `NAME=PATH`, or the name of a known data set.

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
  """What the argument of a configuration file asks for.

  Attributes:
    name: of the data set in `DATASETS`; empty for a folder of one's own.
    size: resize to, and train on, squares of so many pixels; 0 keeps the data set's own sizes.
    features: of the feature net in `FEATURES`; empty: the stage's default.
    preset: of the method.
  """

  name: str = ''
  size: int = 0
  features: str = ''
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
      options[key] = parse(f'option {key}', value, getattr(cls, key))
    parsed = cls(name=first, **options)
    if parsed.name:
      choose(DATASETS, parsed.name, 'data set')
    if parsed.features:
      choose(FEATURES, parsed.features, 'features')
    return parsed


def parse(what: str, text: str, old: Any) -> Any:
  """A value of the type of `old`, from text.

  Args:
    what: that is set, for messages.
    text: tuples as `64,64` or `(64, 64)`.
    old: value that it replaces.

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
  """An argument of a configuration file with the options of another one in place of its own."""
  items = {}
  for text in (arg, options):
    for item in filter(None, text.split(',')):
      key, equals, value = item.partition('=')
      items.update({key: value} if equals else {'': item})
  name = items.pop('', '')
  return ','.join([name, *(f'{key}={value}' for key, value in items.items())])


def tuples(value: Any) -> Any:
  """Lists, as JSON has them, as tuples, as configurations have them."""
  if isinstance(value, list | tuple):
    return tuple(tuples(item) for item in value)
  if isinstance(value, dict):
    return {key: tuples(item) for key, item in value.items()}
  return value


def choose(choices: Mapping[str, Any], name: str, what: str) -> Any:
  """`known[name]`, or a ConfigError that says what is known."""
  if name not in choices:
    raise ConfigError(f'{what} {name!r} is unknown: {suggestion(name, choices)}')
  return choices[name]
