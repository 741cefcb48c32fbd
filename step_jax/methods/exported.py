"""Opens exports as runs: reads configuration and parameters, and writes nothing."""

from collections.abc import Callable, Mapping
import hashlib
import pathlib
from typing import Any

import flax.traverse_util
import jax
import ml_collections
import numpy as np
from safetensors import numpy as safetensors_numpy

from step_jax import config as config_lib
from step_jax import config_values, files, untrusted
from step_jax.errors import ConfigError, RunError
from step_jax.methods.names import FILES, MANIFEST, PARAMETERS

KIND = 'step_jax.export'
FORMAT = f'{KIND}/1'
# Fields whose paths are reduced to their last part in an export.
PATHS = ('data.path', 'features.weights')
_REMEDY = 'download it again, or run step-jax export again'


def read_config(folder: files.Path) -> ml_collections.ConfigDict:
  """The configuration of the stage that was exported.

  Raises:
    RunError: the manifest is damaged, or has another format.
  """
  return _read_manifest(folder)[0]


def open_run(folder: files.Path, restore: Callable | None, which: str) -> Any:
  """Opens an export as a run.

  Args:
    folder: folder of the export.
    restore: see `methods.Method`.
    which: must be `latest`, because an export has one checkpoint.

  Raises:
    ConfigError: `which` is `best`.
    RunError: a file is damaged, or does not fit the configuration; or the method has no `restore`.
  """
  if which != 'latest':
    raise ConfigError(f'{folder}: an export holds one checkpoint: leave out --checkpoint {which}')
  config, manifest = _read_manifest(folder)
  if restore is None:
    raise RunError(f'{folder}: runs of the stage {config.stage} cannot be opened from an export')
  path = folder / PARAMETERS
  try:
    tree = _read_arrays(path, manifest['files'][PARAMETERS])
    return restore(config, manifest['step'], tree)
  except Exception as error:  # Parsers may raise anything on damaged files.
    raise _damaged(path, error) from None


def fit(tree: Any, like: Any) -> Any:
  """Checks parameters of networks and puts them on the default device.

  Args:
    tree: dicts of arrays.
    like: dicts of `jax.ShapeDtypeStruct` with the required names and shapes.

  Raises:
    ValueError: names or shapes differ.
  """
  flat, shapes = (flax.traverse_util.flatten_dict(each, sep='/') for each in (tree, like))
  for name in sorted(flat.keys() | shapes.keys()):
    have, want = (getattr(each.get(name), 'shape', 'missing') for each in (flat, shapes))
    if have != want:
      raise ValueError(f'{name}: shape {have}, the configuration says {want}')
  return jax.device_put(tree, jax.local_devices()[0])


def _read_manifest(folder: files.Path) -> tuple[ml_collections.ConfigDict, Mapping]:
  path = folder / MANIFEST
  try:
    manifest = untrusted.read_json(_read(path).decode())
    if manifest.get('format') != FORMAT:
      raise ValueError(f'not of the format {FORMAT}')
    if type(manifest['step']) is not int:
      raise ValueError('no step')
    fields = {
      name: pathlib.PurePath(value).name if name in PATHS else value
      for name, value in manifest['config'].items()
    }
    tree = flax.traverse_util.unflatten_dict(fields, sep='.')
    config = ml_collections.ConfigDict(config_values.tuples(tree))
    config_lib.check_kinds(config)
  except Exception as error:
    raise _damaged(path, error) from None
  return config, manifest


def _read_arrays(path: files.Path, about: Mapping) -> dict[str, Any]:
  """Reads the arrays of an export as a tree; `about` is the entry of the file in the manifest."""
  data = _read(path)
  if hashlib.sha256(data).hexdigest() != about['sha256']:
    raise ValueError('its SHA-256 is not that of the manifest')
  arrays = safetensors_numpy.load(data)
  if any(array.dtype not in (np.float32, np.float16) for array in arrays.values()):
    raise ValueError('neither float32 nor float16')
  singles = {name: array.astype(np.float32) for name, array in arrays.items()}
  return flax.traverse_util.unflatten_dict(singles, sep='/')


def _damaged(path: files.Path, error: Exception) -> RunError:
  reason = f'{error} is missing' if isinstance(error, KeyError) else error
  return untrusted.damaged(path, reason, _REMEDY)


def _read(path: files.Path) -> bytes:
  if not files.in_bucket(path) and path.stat().st_size > FILES[path.name]:
    raise ValueError(f'larger than {FILES[path.name]} bytes')
  return path.read_bytes()
