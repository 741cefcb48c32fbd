"""Style codes in `.npy` files, and `codes.json`, which records the encoder that made them."""

import logging
from typing import Any

import numpy as np

from step_jax import files, methods, untrusted
from step_jax.errors import RunError, shown

log = logging.getLogger(__name__)

FILE = 'codes.json'
SUFFIX = '.npy'
_REMEDY = 'write it again with `step-jax codes`'


def is_code(path: files.Path) -> bool:
  """Whether the file of a style holds a code rather than an image."""
  return path.suffix == SUFFIX


def record_of(run: methods.Encoder, out: files.Path) -> dict[str, Any]:
  """Content of `codes.json`: the encoder, and the codes already in the folder."""
  encoder = {
    'method': run.method,
    'stage': run.config.stage if hasattr(run, 'config') else '',
    'step': getattr(run, 'step', 0),
    'digest': run.code_digest,
    'shape': list(run.code_shape),
  }
  before = _read_record(out)
  if before and any(before.get(name) != encoder[name] for name in ('method', 'digest', 'shape')):
    raise RunError(f'{out / FILE}: has codes of another encoder: choose another --out')
  return encoder | {'codes': before['codes'] if before else {}}


def _read_record(folder: files.Path) -> dict[str, Any] | None:
  path = folder / FILE
  if not path.is_file():
    return None
  try:
    record = untrusted.read_json(path.read_text('utf-8'))
    if not isinstance(record.get('codes'), dict):
      raise ValueError('it lists no codes')
    return record
  except (ValueError, RecursionError) as error:
    raise untrusted.damaged(path, error, 'remove it, or restore it from a copy') from None


def read(run: methods.Encoder, path: files.Path) -> Any:
  """Reads a code written by `step-jax codes`, or any array of the same shape.

  Logs a warning if `codes.json` in the same folder names another encoder.

  Raises:
    RunError: the file is damaged, or is not a code of this method.
  """
  array = untrusted.read_arrays(path, _REMEDY)['']
  name = shown(str(path))
  try:
    code = of_trees(run, 'unpack')(array)
  except ValueError as error:
    raise RunError(f'{name}: is not a code of this run: {error}') from None
  record = _read_record(path.parent)
  if record and path.name in record['codes'] and record.get('digest') != run.code_digest:
    stage = shown(str(record.get('stage')))
    log.warning(
      '%s: was written by another encoder (%s at step %s) than that of this run: '
      'its style may look different', name, stage, shown(str(record.get('step'))),
    )  # fmt: skip
  return code


def of_trees(run: methods.Encoder, name: str):
  """The `pack` or `unpack` method of an encoder; the identity if its codes are plain arrays."""

  def unchanged(array: np.ndarray) -> np.ndarray:
    if array.shape != run.code_shape or array.dtype.kind != 'f' or not np.isfinite(array).all():
      raise ValueError(
        f'got {array.dtype} {list(array.shape)}, expected finite numbers {list(run.code_shape)}'
      )
    return array.astype(np.float32)

  return getattr(run, name, unchanged)
