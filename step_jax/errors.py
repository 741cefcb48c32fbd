"""Errors that a user can fix: one line that says what is wrong, where, and what to do.

The command line prints only their message and exits with status 2. All other exceptions are bugs
and keep their traceback.
"""

from collections.abc import Iterable
import difflib
import unicodedata

# Control characters, surrogates (from bytes that are not UTF-8), and line separators.
_UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')


class UserError(Exception):
  """Base class of all errors that a user can fix."""


class ConfigError(UserError):
  """A configuration field is unknown, of the wrong type, or does not fit the others."""


class DataError(UserError):
  """A folder or image cannot be used as training or evaluation data."""


class WeightsError(UserError):
  """A weights file is missing, damaged, or for another network."""


class RunError(UserError):
  """A work directory is missing, incomplete, or does not fit the request."""


class Preempted(Exception):
  """Training was stopped by SIGTERM and has saved its state."""


def is_printable(text: str) -> bool:
  """Whether a text has no control characters, line breaks or bytes that are not UTF-8.

  Such characters could forge log lines or control a terminal.
  """
  return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def shown(text: str) -> str:
  """Escapes unprintable characters of a text, for messages."""
  return text if is_printable(text) else ascii(text)[1:-1]


def suggestion(name: str, names: Iterable[str], listing: str = 'use one of') -> str:
  """Suggestion for an unknown name: the most similar one, or all names after `listing`."""
  names = list(names)
  near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
  return f'did you mean {near[0]}?' if near else f'{listing} {", ".join(names)}'


def first_line(error: Exception | str) -> str:
  """Message of a library error, short and printable; its type if there is no message."""
  return shown((str(error).splitlines() or [''])[0][:150] or type(error).__name__)
