"""Starts processes that train together on this machine."""

from collections.abc import Sequence
import concurrent.futures
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def start(devices: int, *commands: list[str]) -> list[subprocess.Popen]:
  """Starts one process per host, with given arguments and number of CPU devices."""
  count = len(commands)
  address = f'127.0.0.1:{free_port()}'
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  joined = ['--distributed'] if count > 1 else []
  return [
    subprocess.Popen(
      [sys.executable, *command, *joined],
      cwd=ROOT,
      env={
        **os.environ,
        'XLA_FLAGS': flags,
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': str(count),
        'JAX_PROCESS_ID': str(index),
        'NPROC': '8',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for index, command in enumerate(commands)
  ]


def outputs(processes: Sequence[subprocess.Popen], timeout: float) -> list[str]:
  """Waits until all processes have ended; returns what they printed.

  All are read at once, because a process whose pipe is full would stop the others.
  """
  with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
    read = lambda process: process.communicate(timeout=timeout)[0]
    return list(pool.map(read, processes))
