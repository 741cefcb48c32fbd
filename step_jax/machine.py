"""This machine: package versions, cores, memory."""

from collections.abc import Iterable
import ctypes
from importlib import metadata
import os
import pathlib


def version(name: str) -> str:
  """Version of an installed package, or ''."""
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return ''


def versions(names: Iterable[str]) -> dict[str, str]:
  """Versions of the packages that are installed."""
  return {name: version(name) for name in names if version(name)}


def cores() -> int:
  """Number of processors available to this process."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def memory() -> int:
  """Main memory in bytes, or the limit of the container if it is smaller."""
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')
  limit_text = limit.read_text().strip() if limit.is_file() else ''
  installed = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return min(installed, int(limit_text)) if limit_text.isdigit() else installed


def return_free_memory() -> None:
  """Returns memory to the system that was freed but is kept by the C library, if it is glibc."""
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim:
    trim(0)
