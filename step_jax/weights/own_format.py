"""Our own weights files: safetensors with flax parameter paths, float32, HWIO, for RGB inputs.

The metadata have the format (`format`), the network (`name`) and its origin (`source`,
`source_sha256`, `lineage`). The same weights always give the same bytes, so the SHA-256 of a file
identifies its content. The safetensors library does not guarantee this (it shuffles metadata), and
the format is simple enough to write here.
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
  """Weights of a network or of LPIPS heads with our names and axes.

  Attributes:
    name: name of the file in the store: one of `nets.NAMES`, or of a network of one method.
    arrays: name -> float32 array, in the order of the layers.
    source: name of the published file.
    source_sha256: SHA-256 of the published file.
    lineage: origin of the network, which determines its input normalisation; see `layouts.Layout`.
  """

  name: str
  arrays: Mapping[str, np.ndarray]
  source: str
  source_sha256: str
  lineage: str


def is_own(metadata: Mapping[str, str]) -> bool:
  """Whether a safetensors file has our format, in any version."""
  return metadata.get('format', '').startswith(f'{_KIND}/')


def check(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> str:
  """Checks names and shapes of a file in our format, and returns the name of its network or heads.

  Raises:
    WeightsError: the file has another version, does not fit its network, or was changed.
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
  nets.present_layers(name, tensors, where)
  return name


def encode(weights: Weights) -> bytes:
  """The header of the file: length (uint64), then JSON, padded to 8 bytes; the arrays follow."""
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
  """Writes a file atomically, by renaming a temporary file.

  Raises:
    WeightsError: the file cannot be written.
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
