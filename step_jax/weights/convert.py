"""Converts published weights to our own format, in memory or as a file."""

from collections.abc import Mapping
import os
import pathlib

import numpy as np

from step_jax import places
from step_jax.errors import WeightsError
from step_jax.models.features import FEATURE_NETS
from step_jax.weights import known, layouts, nets, own_format, readers
from step_jax.weights.layouts import Layout
from step_jax.weights.own_format import Weights
from step_jax.weights.tensors import Tensor


def convert(
  path: str | os.PathLike, name: str | None = None, out: str | os.PathLike | None = None
) -> pathlib.Path:
  """Converts a weights file to our own format.

  Supports `vgg16.npy` of the original StEP, Keras' VGG16 `.h5` without the top, torchvision's
  `.pth` or `.safetensors` of VGG16, VGG19, AlexNet and SqueezeNet 1.1, pytorch-fid's Inception,
  LPIPS heads, the `.npz` of these networks, and our own format. No code in the file is executed.

  Args:
    path: the file.
    name: network or heads in the file; None: identified by the digest of the file, then by names
      and shapes. Heads of LPIPS 0.0 look like those of 0.1: pass `lpips_alex_v0.0` if the file is
      not the published `v0.0/alex.pth`.
    out: file to write; None: the file of the network in the weights store.

  Returns:
    The file, which is written atomically.

  Raises:
    WeightsError: the file is damaged, altered, of another network, or cannot be read or written.
  """
  return write(read(path, name or '')[0], out)


def write(weights: Weights, out: str | os.PathLike | None = None) -> pathlib.Path:
  """Writes weights to a file, by default in the weights store, and returns its path.

  Raises:
    WeightsError: the file cannot be written.
  """
  written = places.weights() / f'{weights.name}.safetensors' if out is None else places.expand(out)
  own_format.write(weights, written)
  return written


def read(path: str | os.PathLike, name: str = '') -> tuple[Weights, str]:
  """Reads a file of any format that `convert` supports.

  Args:
    path: the file.
    name: expected network or heads; '': any.

  Returns:
    The weights, and the SHA-256 of the file.

  Raises:
    WeightsError: see `convert`.
  """
  path = places.expand(path)
  if name and name not in nets.NAMES:
    raise WeightsError(f'no weights are called {name!r}; there are {", ".join(nets.NAMES)}')
  digest = known.digest(path)
  known.check(path.absolute(), digest)
  tensors, metadata = readers.read(path)
  if own_format.is_own(metadata):
    weights = _own(tensors, metadata, str(path))
  else:
    published = known.by_digest(digest)
    layout = layouts.recognise(tensors, published.name if published else name, str(path))
    lineage = (published and published.lineage) or layout.lineage
    arrays = _to_ours(layout, tensors, lineage, str(path))
    weights = Weights(layout.name, arrays, path.name, digest, lineage)
  if name not in ('', weights.name):
    raise WeightsError(f'{path} holds {weights.name}, not {name}; give a file of {name}')
  return weights, digest


def _own(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> Weights:
  name = own_format.check(tensors, metadata, where)
  fields = [metadata.get(field, '') for field in ('source', 'source_sha256', 'lineage')]
  paths = [path for path in nets.shapes(name) if path in tensors]
  return Weights(name, {path: read_array(tensors, path, where) for path in paths}, *fields)


def _to_ours(
  layout: Layout, tensors: Mapping[str, Tensor], lineage: str, where: str
) -> dict[str, np.ndarray]:
  """Reads the tensors of a layout with our names and axes, and adds the input normalisation."""
  arrays = {}
  for name, path in layout.paths.items():
    if name in tensors:
      array = read_array(tensors, name, where)
      if layout.axes == 'OIHW' and array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
      arrays[path] = np.ascontiguousarray(array.reshape(nets.shapes(layout.name)[path]))
  if layout.name in FEATURE_NETS:
    bgr, mean, std, unit = layouts.PIXELS[lineage]
    # Scaling the input and all biases scales all activations by the same factor.
    arrays = {path: x * np.float32(unit) if x.ndim == 1 else x for path, x in arrays.items()}
    arrays['input/mean'] = np.array(mean, np.float32)
    arrays['input/scale'] = np.float32(unit) / np.array(std, np.float32)
    first = f'{nets.layers(layout.name)[1]}/kernel'
    if bgr and first in arrays:
      arrays[first] = np.ascontiguousarray(arrays[first][:, :, ::-1])
  nets.present_layers(layout.name, arrays, where)
  return {path: arrays[path] for path in nets.shapes(layout.name) if path in arrays}


def read_array(tensors: Mapping[str, Tensor], name: str, where: str) -> np.ndarray:
  """Reads a tensor as float32; all values must be finite."""
  try:
    array = tensors[name].read()
    if array.shape != tensors[name].shape or not np.issubdtype(array.dtype, np.floating):
      raise ValueError('shape or type')
  except Exception as error:  # Parsers may raise anything on damaged files.
    raise WeightsError(
      f'{where} is damaged or has no floating point numbers at {name} ({type(error).__name__}); '
      'download or copy it again'
    ) from error
  array = np.asarray(array, np.float32)
  if not np.isfinite(array).all():
    raise WeightsError(f'{where} has values at {name} that are not finite; get another copy')
  return array
