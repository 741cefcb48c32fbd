"""Processes that train together: they join, and none is left waiting for one that has failed."""

import os
import sys
import threading
import time
from typing import NoReturn

import jax
from jax._src import distributed  # The one way to the service that the hosts share.

from step_jax.errors import ConfigError

# Where there is no cluster that JAX knows, these say who is who.
ADDRESS, COUNT, INDEX = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
# A host that has sent no sign of life for so many seconds is taken for dead.
_HEARTBEAT = 30
_FAILED = 'step_jax/failed'
# What the libraries that sum over hosts, and the service, say when one is gone.
_LOST = ('Gloo', 'NCCL', 'onnection', 'UNAVAILABLE', 'oordination', 'heartbeat')
# For the others to hear, before the service may go down with this process.
_LAST_WORDS = 3.0
# How often, in seconds, hosts look whether another has failed.
_LOOK = 1.0


def join() -> None:
  """Joins the other hosts, and watches from then on whether one of them fails.

  On Cloud TPU VMs and under SLURM, JAX finds the others by itself; elsewhere the variables
  `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` name them.

  Raises:
    ConfigError: the variables make no sense.
  """
  given = {}
  if COUNT in os.environ:
    try:
      given = {'num_processes': int(os.environ[COUNT]), 'process_id': int(os.environ[INDEX])}
    except (KeyError, ValueError):
      raise ConfigError(
        f'{COUNT}={os.environ[COUNT]}, {INDEX}={os.environ.get(INDEX, "")}: on every host give the '
        f'number of hosts, its own from 0 on, and {ADDRESS}=HOST:PORT of the first'
      ) from None
  jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT, **given)
  threading.Thread(target=_watch, daemon=True).start()


def others() -> bool:
  """Whether this process has joined any."""
  return distributed.global_state.client is not None and jax.process_count() > 1


def leave(status: int, message: str) -> NoReturn:
  """Ends this process after a failure, so that all others end too, with its message.

  Without it they would wait for this one in their next sum over all devices.

  Args:
    status: with which all end.
    message: one line for the others.
  """
  client = distributed.global_state.client
  try:
    client.key_value_set(_FAILED, f'{jax.process_index()}\n{status}\n{message}')
    time.sleep(_LAST_WORDS)
  except jax.errors.JaxRuntimeError:
    # Another one was first, and `_watch` ends this one with its status; or the service is gone.
    time.sleep(3 * _LAST_WORDS)
  _end(status)


def is_lost(error: BaseException) -> bool:
  """Whether an error comes from a sum over all devices in which one did not take part."""
  lost = isinstance(error, jax.errors.JaxRuntimeError)
  return lost and any(word in str(error) for word in _LOST)


def _watch() -> None:
  """Looks whether a host has failed, and ends this one then."""
  client = distributed.global_state.client
  while True:
    # Not by waiting for the word: Python cannot end while a thread of it stands in the service.
    time.sleep(_LOOK)
    try:
      failure = client.key_value_try_get(_FAILED)
    except jax.errors.JaxRuntimeError as error:
      if 'NOT_FOUND' in str(error):
        continue
      return  # The service has ended: with training, or JAX ends this process itself.
    host, status, message = failure.split('\n', 2)
    if int(host) != jax.process_index():
      print(f'step-jax: host {host} has stopped, and so does this one: {message}', file=sys.stderr)
      if jax.process_index() == 0:
        # The service runs here: JAX aborts whoever is still there when it goes.
        time.sleep(2 * _LAST_WORDS)
      _end(int(status))
    return


def _end(status: int) -> NoReturn:
  # Not by the way out of Python, on which JAX waits for the other hosts.
  sys.stderr.flush()
  sys.stdout.flush()
  os._exit(status)
