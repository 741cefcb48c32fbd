"""What this machine is: versions of packages, cores, memory."""

from collections.abc import Iterable
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
  """Version of each package that is installed."""
  return {name: version(name) for name in names if version(name)}


def cores() -> int:
  """Processors that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def memory() -> int:
  """Main memory in bytes; less where a container is given less."""
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')
  given = limit.read_text().strip() if limit.is_file() else ''
  whole = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return min(whole, int(given)) if given.isdigit() else whole
