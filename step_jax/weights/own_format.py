"""Our own weights files: safetensors with flax parameter paths, float32, HWIO, reading RGB.

The metadata say what the file is (`format`), what it holds (`name`), and where that came from
(`source`, `source_sha256`, `lineage`). The same weights always give the same bytes, so that the
SHA-256 of a file names its contents; the safetensors library does not promise that when it writes
metadata (it shuffles them), and the format is simple enough to write here.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
import struct

import numpy as np

from step_jax.errors import WeightsError
from step_jax.weights import nets
from step_jax.weights.tensors import Tensor

_KIND = 'step_jax.weights'
FORMAT = f'{_KIND}/1'


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights of a net or of LPIPS heads in our names and axes.

  Attributes:
    name: of the file in the store: one of `nets.NAMES`, or of a network that one method uses.
    arrays: name -> float32 array, in the order of the layers.
    source: name of the file they were published in.
    source_sha256: of that file.
    lineage: who trained the net and how it sees pixels; see `layouts.Layout`.
  """

  name: str
  arrays: Mapping[str, np.ndarray]
  source: str
  source_sha256: str
  lineage: str


def is_own(metadata: Mapping[str, str]) -> bool:
  """Whether a safetensors file is in our format, of any version."""
  return metadata.get('format', '').startswith(f'{_KIND}/')


def check(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> str:
  """Checks names and shapes of a file in our format, and returns the name of its net or heads.

  Raises:
    WeightsError: it is of another version or net, or was tampered with.
  """
  if metadata['format'] != FORMAT:
    raise WeightsError(
      f'{where} is in format {metadata["format"]!r}, this version of step_jax reads {FORMAT}: '
      'convert the original file again'
    )
  name = metadata.get('name', '')
  shapes = nets.shapes(name)
  for path, tensor in tensors.items():
    if tensor.shape != shapes.get(path):
      raise WeightsError(
        f'{where} is no {name}: {path!r} {list(tensor.shape)} does not fit; convert it again'
      )
  nets.held(name, tensors, where)
  return name


def encode(weights: Weights) -> bytes:
  """The file's header: length (uint64), then JSON, padded to 8 bytes; the arrays follow it."""
  header, end = {'__metadata__': {'format': FORMAT}}, 0
  for field in ('name', 'source', 'source_sha256', 'lineage'):
    header['__metadata__'][field] = getattr(weights, field)
  for path, array in weights.arrays.items():
    start, end = end, end + array.nbytes
    header[path] = {'dtype': 'F32', 'shape': list(array.shape), 'data_offsets': [start, end]}
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  return struct.pack('<Q', len(text)) + text


def write(weights: Weights, path: pathlib.Path) -> None:
  """Writes the file under another name and renames it, so that it is there whole or not at all.

  Raises:
    WeightsError: it cannot be written.
  """
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with part.open('wb') as file:
        file.write(encode(weights))
        for array in weights.arrays.values():
          file.write(np.ascontiguousarray(array, '<f4').tobytes())
        file.flush()
        os.fsync(file.fileno())
      part.replace(path)
    finally:
      part.unlink(missing_ok=True)
  except OSError as error:
    raise WeightsError(
      f'cannot write {path}: {error.strerror}; choose another place, or set STEP_JAX_WEIGHTS'
    ) from error
