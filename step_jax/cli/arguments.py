"""Parts of the parsers of all verbs. Nothing here imports JAX: help is quick."""

import argparse
from collections.abc import Callable, Iterable
import math
import textwrap
from typing import Any

from step_jax import files, methods
from step_jax import main as main_lib
from step_jax.errors import UserError

WIDTH = 100
# Of options of methods among the arguments, whose names are the methods' own choice.
_PREFIX = 'option '


class Parser(argparse.ArgumentParser):
  """A parser whose errors are one line, as all others of this program."""

  def error(self, message):
    self.exit(main_lib.EXIT_USER_ERROR, f'step-jax: {message}: see {self.prog} --help\n')


class Formatter(argparse.RawDescriptionHelpFormatter):
  """Help as it is written, in lines of `WIDTH`."""

  def __init__(self, prog):
    super().__init__(prog, max_help_position=28, width=WIDTH)


def add_verb(verbs, name: str, run, help_: str, description: str = '') -> argparse.ArgumentParser:
  """Adds a verb, which calls `run` with the parsed arguments."""
  verb = verbs.add_parser(
    name,
    help=help_,
    description=textwrap.fill(description or help_, WIDTH),
    formatter_class=Formatter,
    allow_abbrev=False,
  )
  verb.set_defaults(run=run)
  return verb


def path(text: str, resolve: Callable[[str], files.Path] = files.path) -> files.Path:
  """A type of arguments: a folder or file, of this machine or in a bucket."""
  try:
    return resolve(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(error) from None


def run(text: str) -> files.Path:
  """A type of arguments: the folder of a run that is only read, see `methods.resolve`."""
  return path(text, methods.resolve)


def number(
  kind: Callable[[str], float], wanted: str, fits: Callable[[float], bool]
) -> Callable[[str], float]:
  """A type of arguments: numbers of a kind (`int`, `float`) that fit, else an error names both."""

  def parse(text: str) -> float:
    """See above."""
    try:
      value = kind(text)
    except ValueError:
      value = math.nan
    if not fits(value):  # No comparison holds of NaN.
      raise argparse.ArgumentTypeError(f'{text!r} is not {wanted}')
    return value

  return parse


positive = number(int, 'a whole number of at least 1', lambda value: value >= 1)
not_negative = number(int, 'a whole number of at least 0', lambda value: value >= 0)
amount = number(float, 'a number above 0', lambda value: 0 < value < math.inf)
fraction = number(float, 'a number of at least 0 and below 1', lambda value: 0 <= value < 1)
port = number(int, 'a port, 1 to 65535', lambda value: 1 <= value <= 65535)


def add_workdir(verb: argparse.ArgumentParser) -> None:
  """Adds `--workdir`."""
  verb.add_argument(
    '--workdir', required=True, type=path, help='folder of the run, or gs://BUCKET/FOLDER'
  )


def add_run(verb: argparse.ArgumentParser, default: str = '') -> None:
  """Adds `--workdir` of verbs that only read it; it is required if there is no default."""
  verb.add_argument(
    '--workdir',
    required=not default,
    default=default or None,
    type=run,
    help='folder of the run or of an export, gs://BUCKET/FOLDER, hf://OWNER/NAME[@REVISION], or '
    f'{" or ".join(methods.shipped())}' + f' (default: {default})' * bool(default),
  )


def add_checkpoint(verb: argparse.ArgumentParser) -> None:
  """Adds `--checkpoint`."""
  verb.add_argument(
    '--checkpoint',
    choices=('latest', 'best'),
    default='latest',
    help='checkpoint to use; best: by a validation score (default: latest)',
  )


def add_option(
  verb: argparse.ArgumentParser, name: str, option: methods.Option, prefix: str = ''
) -> None:
  """Adds an option of a method as the flag `--NAME`; see `given`."""
  verb.add_argument(
    f'--{name}',
    dest=_PREFIX + name,
    # Options that are not given must not reach methods without these options.
    default=argparse.SUPPRESS,
    type=option.kind,
    choices=option.choices or None,
    nargs=option.nargs,
    metavar=option.metavar or (None if option.choices else name.upper()),
    help=prefix + option.help,
  )


def given(args: argparse.Namespace, flags: Iterable[str]) -> dict[str, Any]:
  """The options of methods that are given: name, with underscores -> value."""
  values = vars(args)
  return {
    flag.replace('-', '_'): values[_PREFIX + flag] for flag in flags if _PREFIX + flag in values
  }
