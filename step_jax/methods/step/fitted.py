"""Records the style encoder and the codes that a mapper was fitted to, in its folder."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np

from step_jax import files, untrusted
from step_jax.errors import RunError, is_printable

CODES_FILE = 'codes.npy'
FILE = 'encoder.json'


@dataclasses.dataclass(frozen=True)
class Encoder:
  """A style encoder.

  Attributes:
    stage: name of the stage that trained it.
    step: step of the checkpoint.
    digest: digest of its averaged parameters, see `digest`; it does not depend on the stage.
  """

  stage: str
  step: int
  digest: str

  def __str__(self) -> str:
    return f'{self.stage} at step {self.step}'


def digest(params: Any) -> str:
  """SHA-256 of the names, shapes, types and values of a tree of parameters, in hexadecimal."""
  sha256 = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    array = np.ascontiguousarray(leaf)
    sha256.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n'.encode())
    sha256.update(array.tobytes())
  return sha256.hexdigest()


def write(folder: files.Path, encoder: Encoder, codes: np.ndarray) -> None:
  """Writes the training codes `[N, Z]` and their encoder to a mapper's folder."""
  files.write_array(folder / CODES_FILE, codes)
  record = {**dataclasses.asdict(encoder), 'codes': digest(codes)}
  files.write_text(folder / FILE, json.dumps(record, indent=2) + '\n')


def read(folder: files.Path) -> Encoder | None:
  """Reads the encoder that a mapper was fitted to; None if an earlier version recorded none.

  Raises:
    RunError: the record is damaged.
  """
  record = _record(folder)
  return record and Encoder(record['stage'], record['step'], record['digest'])


def _record(folder: files.Path) -> dict | None:
  path = folder / FILE
  if not path.is_file():
    return None
  try:
    record = untrusted.read_json(path.read_text('utf-8'))
    for field, kind in {'stage': str, 'step': int, 'digest': str, 'codes': str}.items():
      if type(record.get(field)) is not kind or not is_printable(str(record[field])):
        raise ValueError(f'no {field}')
    return record
  except ValueError as error:
    remedy = f'restore it from a copy, or remove {folder} and train the mapper again'
    raise untrusted.damaged(path, error, remedy) from None


def read_codes(folder: files.Path, z_dim: int) -> np.ndarray:
  """Reads the training codes, float32 `[N, Z]`, that a mapper was fitted to.

  Raises:
    RunError: they are missing, damaged, or differ from those recorded.
  """
  path = folder / CODES_FILE
  remedy = 're-run the training command of the mapper stage, which writes it again'
  if not path.is_file():
    raise RunError(f'{path}: is missing: {remedy}')
  codes = untrusted.read_arrays(path, remedy)['']
  if codes.shape[1:] != (z_dim,) or codes.dtype != np.float32 or not np.isfinite(codes).all():
    raise untrusted.damaged(path, 'no codes', remedy)
  record = _record(folder)
  if not len(codes) or (record and digest(codes) != record['codes']):
    raise untrusted.damaged(path, 'not the codes that the mapper was fitted to', remedy)
  return codes
