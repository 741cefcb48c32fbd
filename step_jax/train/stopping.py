"""Handles signals: training ends after the current step, which is saved."""

import contextlib
import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

from step_jax.errors import Preempted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop(contextlib.AbstractContextManager):
  """Handles SIGTERM and SIGINT during training; a second signal ends the process immediately.

  Several hosts stop at the same step: JAX's preemption service then handles SIGTERM on any host and
  notifies all. Outside the main thread, signals are not handled.
  """

  def __init__(self):
    self._received: int | None = None
    self._before = {}
    self._together = jax.process_count() > 1

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in _SIGNALS:
        # Signals that are ignored, as under nohup, or handled by JAX are not changed.
        ours = number == signal.SIGINT or not self._together
        if ours and signal.getsignal(number) not in (signal.SIG_IGN, None):
          self._before[number] = signal.signal(number, self._take)
    return self

  def __exit__(self, *error):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _take(self, number, frame) -> None:
    del frame
    if self._received is None:
      self._received = number
      _tell('stopping after this step to save it; send the signal again to stop immediately')
      if self._together:
        signal.raise_signal(signal.SIGTERM)
    elif hasattr(sys, 'ps1'):  # In a notebook, which should keep running.
      raise KeyboardInterrupt
    else:
      _tell('stopped immediately; re-run the command to resume from the last checkpoint')
      os._exit(128 + number)

  def now(self, step: int) -> bool:
    """Whether to stop after this step; must be called after every step, on every host."""
    if self._together and multihost_utils.reached_preemption_sync_point(step):
      self._received = self._received or signal.SIGTERM
      return True
    return self._received is not None and not self._together

  def tell(self, step: int) -> None:
    """Raises an exception if training was stopped early; `step` was saved.

    Raises:
      Preempted: on SIGTERM.
      KeyboardInterrupt: on SIGINT.
    """
    if self._received == signal.SIGTERM:
      raise Preempted(f'stopped by SIGTERM; step {step} is saved: re-run the command to resume')
    if self._received is not None:
      raise KeyboardInterrupt


def _tell(text: str) -> None:
  # Python streams are not safe in a signal handler.
  os.write(2, f'\nstep-jax: {text}\n'.encode())
