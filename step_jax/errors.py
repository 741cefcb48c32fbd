"""Errors that a user can fix: one line that says what is wrong, where, and what to do.

The command line prints their message alone and exits with status 2; everything else is a bug and
keeps its traceback.
"""

from collections.abc import Iterable
import difflib
import unicodedata

# Control characters, halves of characters (bytes that are no UTF-8), and what breaks lines.
_UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')


class UserError(Exception):
  """Base of all errors whose remedy is in the user's hands."""


class ConfigError(UserError):
  """A configuration field is unknown, of the wrong type, or does not fit the others."""


class DataError(UserError):
  """A folder or picture cannot be used as training or evaluation data."""


class WeightsError(UserError):
  """A weights file is missing, damaged, or of another network."""


class RunError(UserError):
  """A work directory is missing, incomplete, or does not fit what is asked of it."""


class Preempted(Exception):
  """Training was asked to end (SIGTERM) and has saved."""


def is_printable(text: str) -> bool:
  """Whether a text has no control characters, line breaks or bytes that are no UTF-8.

  Those could forge lines of a log, or move the cursor of a terminal.
  """
  return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def shown(text: str) -> str:
  """A text for messages: what is not printable is escaped."""
  return text if is_printable(text) else ascii(text)[1:-1]


def suggestion(name: str, names: Iterable[str], listing: str = 'use one of') -> str:
  """What to use in place of an unknown name: the nearest one, or all of them after `listing`."""
  names = list(names)
  near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
  return f'did you mean {near[0]}?' if near else f'{listing} {", ".join(names)}'


def first_line(error: Exception | str) -> str:
  """What an error of some library says, short and printable; its type where it says nothing."""
  return shown((str(error).splitlines() or [''])[0][:150] or type(error).__name__)
