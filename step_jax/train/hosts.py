"""Connects the processes of several hosts, and stops all of them if one fails."""

import os
import sys
import threading
import time
from typing import NoReturn

import jax
from jax._src import distributed  # The one way to the service that the hosts share.

from step_jax.errors import ConfigError

# Variables for clusters that JAX does not detect.
ADDRESS, COUNT, INDEX = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
# Seconds without a heartbeat after which a host counts as dead.
_HEARTBEAT = 30
# Seconds in which all hosts must connect.
_PATIENCE = 300
_FAILED = 'step_jax/failed'
# Text in errors of collective operations and of the service when a host is missing.
_LOST = ('Gloo', 'NCCL', 'onnection', 'UNAVAILABLE', 'oordination', 'heartbeat')
# Seconds for the other hosts to notice a failure before the service ends with this process.
_LAST_WORDS = 3.0
# Seconds between checks whether another host has failed.
_LOOK = 1.0


def join() -> None:
  """Connects to the other hosts, and starts to watch for failures.

  On Cloud TPU VMs and under SLURM, JAX detects the other hosts. Elsewhere, set the variables
  `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. If not all hosts connect
  within five minutes, this process ends with status 2.

  Raises:
    ConfigError: the variables are not valid.
  """
  arguments = {}
  if COUNT in os.environ:
    try:
      arguments = {'num_processes': int(os.environ[COUNT]), 'process_id': int(os.environ[INDEX])}
    except (KeyError, ValueError):
      raise ConfigError(
        f'{COUNT}={os.environ[COUNT]}, {INDEX}={os.environ.get(INDEX, "")}: on every host give the '
        f'number of hosts, its own from 0 on, and {ADDRESS}=HOST:PORT of the first'
      ) from None
  # After its own timeout, JAX would abort with a stack trace.
  giving_up = threading.Timer(_PATIENCE, _give_up)
  giving_up.daemon = True
  giving_up.start()
  try:
    jax.distributed.initialize(
      heartbeat_timeout_seconds=_HEARTBEAT, initialization_timeout=2 * _PATIENCE, **arguments
    )
  finally:
    giving_up.cancel()
  threading.Thread(target=_watch, daemon=True).start()


def others() -> bool:
  """Whether this process is connected to other hosts."""
  return distributed.global_state.client is not None and jax.process_count() > 1


def leave(status: int, message: str) -> NoReturn:
  """Ends this process after a failure, and all others with its message.

  Otherwise they would wait for this process in their next collective operation.

  Args:
    status: exit status of all processes.
    message: one line for the others.
  """
  client = distributed.global_state.client
  try:
    client.key_value_set(_FAILED, f'{jax.process_index()}\n{status}\n{message}')
    time.sleep(_LAST_WORDS)
  except jax.errors.JaxRuntimeError:
    # Another process failed first, and `_watch` ends this one with its status; or the service
    # ended.
    time.sleep(3 * _LAST_WORDS)
  _end(status)


def is_lost(error: BaseException) -> bool:
  """Whether an error comes from a collective operation in which a host is missing."""
  lost = isinstance(error, jax.errors.JaxRuntimeError)
  return lost and any(word in str(error) for word in _LOST)


def _give_up() -> NoReturn:
  print(
    f'step-jax: not all hosts have connected within {_PATIENCE} s: start the same command on every '
    'host, and check that they reach the first one',
    file=sys.stderr,
  )
  _end(2)


def _watch() -> None:
  """Checks regularly whether a host has failed, and then ends this process."""
  client = distributed.global_state.client
  while True:
    # Polls instead of waiting, because Python cannot exit while a thread waits in the service.
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
        # The service runs in this process, and JAX aborts all processes that remain when it ends.
        time.sleep(2 * _LAST_WORDS)
      _end(int(status))
    return


def _end(status: int) -> NoReturn:
  # Not a normal exit, in which JAX would wait for the other hosts.
  sys.stderr.flush()
  sys.stdout.flush()
  os._exit(status)
