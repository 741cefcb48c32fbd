"""Trains a stage: `python -m step_jax.main --config=FILE.py:ARG --workdir=DIR`.

Set fields with `--config.NAME=VALUE`. On a pod, run the same command with `--distributed` on every
host.
"""

import argparse
from collections.abc import Sequence
import errno
import io
import logging
import os
import select
import sys
import traceback

from step_jax import config as config_lib
from step_jax import places
from step_jax.errors import ConfigError, Preempted, UserError

EXIT_USER_ERROR = 2
# Stopped by SIGTERM and saved: EX_TEMPFAIL of sysexits.h. An unhandled SIGTERM gives 143.
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130
# As of a program that SIGPIPE ends: `step-jax data list | head -1`.
EXIT_CLOSED_OUTPUT = 141
# Errors that a user can fix: a full or read-only disk, a quota, missing permissions, a long name.
_DISK = {
  *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
  errno.ENAMETOOLONG,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Trains the stage of a configuration, and returns the exit status."""
  setup_terminal()
  parser = argparse.ArgumentParser(
    prog='python -m step_jax.main', description=__doc__, allow_abbrev=False
  )
  parser.add_argument('--config', required=True, help='configuration file: configs/x.py:ARG')
  parser.add_argument('--workdir', required=True, help='folder of the run, with a folder per stage')
  parser.add_argument(
    '--distributed',
    action='store_true',
    help='connect to the other hosts of a Cloud TPU pod, of a SLURM job, or those given by '
    'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID',
  )
  add_change_config(parser)
  return guarded(lambda: run(*parser.parse_known_args(argv)))


def run(args: argparse.Namespace, fields: Sequence[str]) -> None:
  """Trains with parsed arguments; `fields` are `--config.NAME=VALUE`."""
  config = config_lib.load(args.config)
  set_fields(config, fields)
  from step_jax import methods  # Imported late, so that wrong arguments are reported immediately.
  from step_jax.train import hosts

  if not args.distributed:
    methods.train(config, args.workdir, args.change_config)
    return
  hosts.join()
  try:
    methods.train(config, args.workdir, args.change_config)
  except (Preempted, KeyboardInterrupt):
    raise  # All hosts stopped together.
  except Exception as error:
    if not hosts.others():
      raise
    status, message = EXIT_USER_ERROR, _remedy(error)
    if message is None:
      traceback.print_exc()
      status, message = 1, f'{type(error).__name__}: {error}'.splitlines()[0]
    if hosts.is_lost(error):
      message = (
        f'another host has ended, or cannot be reached ({message[:200]}): see its log for the '
        'reason, then re-run the command on all hosts to resume'
      )
    print(f'step-jax: {message}', file=sys.stderr)
    hosts.leave(status, message)


def add_change_config(parser: argparse.ArgumentParser) -> None:
  """Adds the flag to resume a stage with another configuration or other images."""
  parser.add_argument(
    '--change-config',
    action='store_true',
    help='resume a stage although its configuration or its images have changed',
  )


def set_fields(config: config_lib.ConfigDict, arguments: Sequence[str]) -> None:
  """Applies `--config.NAME=VALUE` arguments.

  Raises:
    ConfigError: an argument of another form, or an invalid field or value.
  """
  for field, text in split_fields(arguments).items():
    config_lib.set_field(config, field, text)


def split_fields(arguments: Sequence[str]) -> dict[str, str]:
  """`--config.NAME=VALUE` arguments as `{NAME: VALUE}`.

  Raises:
    ConfigError: an argument of another form.
  """
  fields = {}
  for argument in arguments:
    name, equals, text = argument.partition('=')
    if not name.startswith('--config.') or not equals:
      raise ConfigError(f'argument {argument!r} is unknown: set fields with --config.NAME=VALUE')
    fields[name.removeprefix('--config.')] = text
  return fields


def guarded(action) -> int:
  """Runs an action; errors that the user can fix become one line and an exit status.

  An action may return its own exit status; None is 0.
  """
  setup_logging()
  try:
    places.keep_compiled()
    status = action() or 0
    sys.stdout.flush()
    return status
  except Preempted as stop:
    print(f'step-jax: {stop}', file=sys.stderr)
    return EXIT_PREEMPTED
  except KeyboardInterrupt:
    print(
      'step-jax: interrupted; re-run the command to resume from the last checkpoint',
      file=sys.stderr,
    )
    return EXIT_INTERRUPTED
  except Exception as error:
    if isinstance(error, BrokenPipeError) and _output_is_closed():
      return EXIT_CLOSED_OUTPUT
    remedy = _remedy(error)
    if remedy is None:
      raise
    print(f'step-jax: {remedy}', file=sys.stderr)
    return EXIT_USER_ERROR


def _output_is_closed() -> bool:
  """Whether the reader of standard output has ended; what is left to write is then discarded."""
  try:
    descriptor = sys.stdout.fileno()
  except io.UnsupportedOperation:
    return False
  poll = select.poll()
  poll.register(descriptor, 0)
  if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
    return False
  # Python flushes again at its end.
  os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
  return True


def _remedy(error: Exception) -> str | None:
  """The message of an error that the user can fix; None for any other."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, OSError) and error.errno in _DISK:
    where = f'{error.filename}: ' if error.filename else ''
    return (
      f'{where}{error.strerror}: earlier files are intact; fix this, then re-run the command to '
      'resume'
    )
  return None


def setup_terminal() -> None:
  """Makes standard output escape characters that its encoding lacks, as standard error does.

  A terminal may be Latin-1, and file names may have bytes that are not text.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')


def setup_logging() -> None:
  """Logs our messages to standard error, and messages of libraries only if they are errors."""
  logging.basicConfig(
    level=logging.ERROR, format='%(asctime)s %(message)s', datefmt='%H:%M:%S', stream=sys.stderr
  )
  logging.getLogger('step_jax').setLevel(logging.INFO)
  # Orbax logs exceptions, with a traceback of each thread, before it raises them.
  logging.getLogger('absl').setLevel(logging.CRITICAL)


if __name__ == '__main__':
  sys.exit(main())
