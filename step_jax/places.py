"""Folders for files that belong to no run, and the variables that change them."""

import os
import pathlib

from step_jax.errors import ConfigError


def cache() -> pathlib.Path:
  """Cache of prepared data sets and compiled programs: `$STEP_JAX_CACHE`, `~/.cache/step_jax`."""
  return _folder('STEP_JAX_CACHE', '~/.cache/step_jax')


def weights() -> pathlib.Path:
  """The store of converted weights: `$STEP_JAX_WEIGHTS`, `~/.cache/step_jax/weights`."""
  return _folder('STEP_JAX_WEIGHTS', '~/.cache/step_jax/weights')


def expand(path: str | os.PathLike) -> pathlib.Path:
  """Expands `~` in a local path.

  Raises:
    ConfigError: the path starts with `~/`, and this account has no home folder.
  """
  path = pathlib.Path(path)
  try:
    return path.expanduser()
  except RuntimeError:  # HOME is not set, and the account is unknown to the system.
    if path.parts[0] != '~':
      return path  # A file with that name.
    raise ConfigError(
      f'{path}: this account has no home folder: set HOME, or give the whole path'
    ) from None


def keep_compiled() -> None:
  """Enables JAX's cache of compiled programs in `cache()`, unless variables of JAX are set.

  Must run before anything is compiled. A second start of the same training then compiles almost
  nothing. `JAX_ENABLE_COMPILATION_CACHE=false` disables it.
  """
  import jax  # Imported here to keep `step-jax --help` fast.

  # Child processes read the variables. In this process, JAX may already have read them, so the
  # configuration is updated too.
  folder = os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache() / 'compiled'))
  seconds = os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', float(seconds))


def _folder(variable: str, default: str) -> pathlib.Path:
  folder = os.environ.get(variable) or default
  if '://' in folder:
    raise ConfigError(f'{variable}={folder}: must be a folder of this machine')
  try:
    return expand(folder)
  except ConfigError:
    raise ConfigError(
      f'{folder}: this account has no home folder: set HOME, or {variable}, to a folder'
    ) from None
