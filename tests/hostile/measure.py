"""Measures memory, and checks that an error is useful for a user."""

from collections.abc import Callable
import gc
import pathlib
import re

import pytest

from step_jax.errors import UserError

MIB = 1 << 20
_STATUS = pathlib.Path('/proc/self/status')
_RESET = pathlib.Path('/proc/self/clear_refs')


def _resident(field: str) -> int:
  return int(re.search(rf'{field}:\s+(\d+) kB', _STATUS.read_text())[1]) * 1024


def peak(action: Callable[[], object]) -> int:
  """Increase of peak resident memory by an action, in bytes."""
  if not _STATUS.is_file():
    pytest.skip('the system does not tell of resident memory in /proc')
  gc.collect()
  _RESET.write_text('5')  # Resets the peak.
  before = _resident('VmRSS')
  action()
  return _resident('VmHWM') - before


def refused(action: Callable[[], object], kind: type[UserError] = UserError) -> str:
  """The error message of an action; checks that it is one line without control characters."""
  with pytest.raises(kind) as caught:
    action()
  message = str(caught.value)
  assert message and message.isprintable(), message
  return message
