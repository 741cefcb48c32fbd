"""Errors that a user can mend: one line that says what is wrong, where, and what to do.

The command line prints their message alone and exits with status 2; everything else is a bug and
keeps its traceback.
"""


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
