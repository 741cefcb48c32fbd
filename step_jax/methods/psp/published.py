"""Finds, reads and converts published networks for loss terms, scores and encoder bodies.

They are read from PyTorch files, or from files in our own format, to which `step-jax weights
convert` converts them.
"""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any
import zipfile

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from step_jax import places
from step_jax.errors import WeightsError
from step_jax.methods.psp import encoder_state, import_weights, irse
from step_jax.methods.psp.irse import FaceEmbedding
from step_jax.methods.psp.resnet import ResNet50
from step_jax.methods.psp.torch_state import Variables
from step_jax.weights import known, own_format, readers, torch_file
from step_jax.weights.convert import read_array

# Name in the store -> module.
NETWORKS = {
  'arcface_ir_se50': FaceEmbedding(),
  'curricularface_ir101': FaceEmbedding(irse.DEPTHS_101, squeeze=False, affine=False),
  'moco_resnet50': ResNet50(),
  'resnet50': ResNet50(),
}
# As in the reference, identities are scored by another network than that of the training loss.
_OF_TERMS = {
  'identity': 'arcface_ir_se50',
  'moco': 'moco_resnet50',
  'metric': 'curricularface_ir101',
}
# An array in files of ResNet-50 of torchvision and of MoCo, and the prefix of the latter.
_LAST, _PREFIX = 'layer4.2.conv3.weight', 'module.encoder_q.'


def find(term: str, path: str = '') -> pathlib.Path:
  """Finds the file of the network of `loss.identity`, `loss.moco` or the identity score.

  Args:
    term: `identity`, `moco` or `metric`.
    path: path of the file; empty looks in the weights store, for a converted file first.

  Raises:
    WeightsError: the file does not exist; the message says what to do.
  """
  stem = places.weights() / _OF_TERMS[term]
  files = [stem.with_suffix(suffix) for suffix in ('.safetensors', '.pth')]
  if path:
    files = [places.expand(path)]
  for file in files:
    if file.is_file():
      return file
  if term == 'metric':
    raise WeightsError(
      f"needs CurricularFace's IR-101, and there is no {files[0]}: run `step-jax weights convert "
      'FILE` on its file for PyTorch'
    )
  what = {'identity': 'ArcFace IR-SE-50', 'moco': "MoCo's ResNet-50"}[term]
  raise WeightsError(
    f'loss.{term} needs {what}, and there is no {files[0]}: run `step-jax weights convert FILE` '
    f'on its file for PyTorch, set features.{term} to that file, or loss.{term} to 0'
  )


def read_face_embedding(path: pathlib.Path) -> tuple[FaceEmbedding, Variables]:
  """Reads a file of ArcFace's IR-SE-50 or of CurricularFace's IR-101.

  Raises:
    WeightsError: the file cannot be read, is damaged, or has other content.
  """
  if _is_torch(path):
    return encoder_state.face_embedding_from_torch(_state(path), str(path))
  return _read_own(path, FaceEmbedding)


def read_resnet50(path: pathlib.Path) -> tuple[ResNet50, Variables]:
  """Reads a file of MoCo's or torchvision's ResNet-50.

  Raises:
    WeightsError: the file cannot be read, is damaged, or has other content.
  """
  if _is_torch(path):
    return encoder_state.resnet50_from_torch(_state(path), str(path))
  return _read_own(path, ResNet50)


def convert(path: pathlib.Path, name: str = '') -> own_format.Weights | None:
  """Converts a PyTorch file of one of `NETWORKS`, identified by the names of its arrays.

  Args:
    path: the file.
    name: expected network; empty: any.

  Returns:
    Its arrays by collection and name; None if the file has none of these networks.

  Raises:
    WeightsError: the file cannot be read, is damaged, or has another network than `name`.
  """
  state = _tensors(path) if _is_torch(path) else {}
  network, read = '', encoder_state.resnet50_from_torch
  if 'output_layer.3.weight' in state and 'input_layer.0.weight' in state:
    squeeze = 'body.0.res_layer.5.fc1.weight' in state
    network = 'arcface_ir_se50' if squeeze else 'curricularface_ir101'
    read = encoder_state.face_embedding_from_torch
  elif f'{_PREFIX}{_LAST}' in state:
    network = 'moco_resnet50'
  elif _LAST in state:
    network = 'resnet50'
  if name in NETWORKS and network != name:
    raise WeightsError(
      f'{path} holds {network or "another network"}, not {name}; give a file of {name}'
    )
  if not network or name not in ('', network):
    return None
  module, variables = read(import_weights.read_arrays(state, str(path)), str(path))
  if module != NETWORKS[network]:
    raise WeightsError(f'{path} holds a network of another size than {network}; get its own file')
  arrays = flax.traverse_util.flatten_dict(variables, sep='/')
  return own_format.Weights(network, arrays, path.name, known.digest(path), network)


def _read_own(path: pathlib.Path, kind: type[nn.Module]) -> tuple[nn.Module, Variables]:
  tensors, metadata = readers.read(path)
  name = metadata.get('name', '') if own_format.is_own(metadata) else ''
  module = NETWORKS.get(name)
  if not isinstance(module, kind):
    raise WeightsError(f'{path} holds {name or "no network of pSp"}; convert the original file')
  shapes = {path: x.shape for path, x in _shapes(name).items()}
  if {path: tensor.shape for path, tensor in tensors.items()} != shapes:
    raise WeightsError(f'{path} is no {name}: convert the original file again')
  arrays = {key: read_array(tensors, key, str(path)) for key in shapes}
  return module, flax.traverse_util.unflatten_dict(arrays, sep='/')


@functools.cache
def _shapes(name: str) -> Mapping[str, jax.ShapeDtypeStruct]:
  module = NETWORKS[name]
  faces = isinstance(module, FaceEmbedding)
  init = module.init if faces else functools.partial(module.init, train=False)
  image = jnp.zeros((1, *(irse.FACE_SIZE if faces else 64,) * 2, 3))
  return flax.traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0), image), sep='/')


def _is_torch(path: pathlib.Path) -> bool:
  with readers.one_line_errors(path):
    with path.open('rb') as file:
      start = file.read(len(torch_file.LEGACY_MAGIC))
    if not start.startswith(b'PK'):
      return start == torch_file.LEGACY_MAGIC
    with zipfile.ZipFile(path) as archive:
      return any(name.endswith('/data.pkl') for name in archive.namelist())


def _state(path: pathlib.Path) -> dict[str, np.ndarray]:
  return import_weights.read_arrays(_tensors(path), str(path))


def _tensors(path: pathlib.Path) -> Mapping[str, Any]:
  """The state dict of a file, which is the whole file or its entry `state_dict`; unread tensors."""
  tree = import_weights.read_tree(path)
  state = tree.get('state_dict')
  return state if isinstance(state, dict) else tree
