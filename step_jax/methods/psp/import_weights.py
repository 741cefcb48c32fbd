"""Reads published files of StyleGAN2 and pSp as modules and variables, without running their code.

StyleGAN2: rosinality's `.pt` (`g_ema`, optionally `d` and `latent_avg`), or the pickle of NVIDIA's
StyleGAN2-ADA for PyTorch. pSp: `.pt` with `state_dict`, `opts` and `latent_avg`.
"""

from collections.abc import Mapping
import logging
import pathlib
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from step_jax.errors import WeightsError
from step_jax.methods.psp import ada_pickle, encoder_state, stylegan2_state, torch_state
from step_jax.methods.psp.discriminator import Discriminator
from step_jax.methods.psp.encoder_state import Encoder
from step_jax.methods.psp.generator import Generator, mean_style
from step_jax.methods.psp.torch_state import Variables
from step_jax.weights import readers, torch_file
from step_jax.weights.tensors import Tensor

log = logging.getLogger(__name__)


class StyleGAN2(NamedTuple):
  """Content of a file of StyleGAN2.

  Attributes:
    generator, generator_variables: the generator, with averaged parameters.
    mean_style: mean of W, `[D]`.
    discriminator, discriminator_variables: None if the file has none.
  """

  generator: Generator
  generator_variables: Variables
  mean_style: np.ndarray
  discriminator: Discriminator | None = None
  discriminator_variables: Variables | None = None


class Psp(NamedTuple):
  """Content of a file of pSp.

  Attributes:
    encoder, encoder_variables: the encoder, with parameters and statistics.
    generator, generator_variables: the decoder.
    mean_style: mean style that the encoder's output is added to, `[n, D]`; None for zero.
    options: options of the reference, such as `dataset_type` and `output_size`.
  """

  encoder: Encoder
  encoder_variables: Variables
  generator: Generator
  generator_variables: Variables
  mean_style: np.ndarray | None
  options: Mapping[str, Any]


def read_stylegan2(path: pathlib.Path) -> StyleGAN2:
  """Reads a file of StyleGAN2.

  Missing constant noise is sampled, and a missing mean style is the mean of 100,000 styles; both
  are logged.

  Raises:
    WeightsError: the file cannot be read, is damaged, or has other content.
  """
  where = str(path)
  tree = read_tree(path)
  if 'G_ema' in tree:
    generator_state, mean = _from_ada_generator(read_arrays(tree['G_ema'], where), where)
    discriminator_state = None
    if 'D' in tree:
      discriminator_state = _from_ada_discriminator(read_arrays(tree['D'], where))
  else:
    generator_state = read_arrays(_state(tree, 'g_ema', where), where)
    mean = _array(tree['latent_avg'], 'latent_avg', where) if 'latent_avg' in tree else None
    discriminator_state = read_arrays(tree['d'], where) if isinstance(tree.get('d'), dict) else None
  generator, variables = stylegan2_state.generator_from_torch(generator_state, where)
  if mean is None:
    log.warning('%s has no mean style: the mean of 100,000 styles of seed 0 is used', where)
    mean = np.asarray(mean_style(generator, variables, jax.random.key(0)))
  mean = _checked(mean.reshape(-1), (generator.style_dim,), where)
  if discriminator_state is None:
    return StyleGAN2(generator, variables, mean)
  judge = stylegan2_state.discriminator_from_torch(discriminator_state, where)
  return StyleGAN2(generator, variables, mean, *judge)


def read_psp(path: pathlib.Path) -> Psp:
  """Reads a file of pSp; a missing mean style is sampled and logged.

  Raises:
    WeightsError: the file cannot be read, is damaged, or has other content.
  """
  where = str(path)
  tree = read_tree(path)
  state = read_arrays(_state(tree, 'state_dict', where), where)
  # Loss networks are not saved; the pooling layer of some files has no arrays.
  parts = [torch_state.without_prefix(state, prefix) for prefix in ('encoder.', 'decoder.')]
  encoder = encoder_state.encoder_from_torch(parts[0], where)
  generator, variables = stylegan2_state.generator_from_torch(parts[1], where)
  options = tree.get('opts') if isinstance(tree.get('opts'), dict) else {}
  mean = None
  if 'latent_avg' in tree:
    mean = _array(tree['latent_avg'], 'latent_avg', where)
    rows = mean.shape[0] if mean.ndim == 2 else 1
    if rows not in (1, generator.num_styles):
      raise _unlike(where, mean.shape, generator)
    mean = _checked(mean.reshape(rows, -1), (rows, generator.style_dim), where)
    mean = np.broadcast_to(mean, (generator.num_styles, generator.style_dim))
  elif options.get('start_from_latent_avg'):
    log.warning('%s has no mean style, which its encoder needs: that of seed 0 is used', where)
    mean = np.asarray(mean_style(generator, variables, jax.random.key(0)))
    mean = np.broadcast_to(mean, (generator.num_styles, generator.style_dim))
  styles = getattr(encoder[0], 'num_styles', generator.num_styles)
  if styles != generator.num_styles or encoder[0].style_dim != generator.style_dim:
    raise WeightsError(
      f'{where} has an encoder of {styles} styles and a generator of {generator.num_styles}; '
      'get another copy'
    )
  return Psp(*encoder, generator, variables, mean, options)


def read_tree(path: pathlib.Path) -> dict[str, Any]:
  """Reads the dicts of a file, with unread tensors."""
  with readers.one_line_errors(path):
    with path.open('rb') as file:
      start = file.read(len(torch_file.LEGACY_MAGIC))
    if start.startswith(b'PK') or start == torch_file.LEGACY_MAGIC:
      return torch_file.read_checkpoint(path)
    return ada_pickle.read(path)


def _state(tree: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
  if not isinstance(tree.get(name), dict):
    raise WeightsError(f'{where} has no {name}; give a file of StyleGAN2 or pSp for PyTorch')
  return tree[name]


def read_arrays(state: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
  """Reads the tensors in a dict; other values are dropped.

  Raises:
    WeightsError: a tensor is damaged.
  """
  return {
    name: _array(tensor, name, where)
    for name, tensor in state.items()
    if isinstance(tensor, Tensor)
  }


def _array(tensor: Any, name: str, where: str) -> np.ndarray:
  """Reads a tensor."""
  try:
    array = tensor.read()
    if array.shape != tensor.shape:
      raise ValueError('shape')
    return array
  except Exception as error:  # Parsers may raise anything on damaged files.
    raise WeightsError(
      f'{where} is damaged at {name} ({type(error).__name__}); download or copy it again'
    ) from error


def _checked(mean: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
  mean = np.asarray(mean, np.float32)
  if mean.shape != shape or not np.isfinite(mean).all():
    raise WeightsError(f'{where} has a mean style that does not fit its generator')
  return mean


def _unlike(where: str, shape: tuple[int, ...], generator: Generator) -> WeightsError:
  return WeightsError(
    f'{where} has mean styles {list(shape)} and a generator of {generator.num_styles} layers; '
    'get another copy'
  )


# Names in ADA -> rosinality's names, and the number of their additional leading axes.
_ADA_LAYER = {
  'weight': ('conv.weight', 1),
  'affine.weight': ('conv.modulation.weight', 0),
  'affine.bias': ('conv.modulation.bias', 0),
  'noise_strength': ('noise.weight', 1),
  'bias': ('activate.bias', 0),
}


def _from_ada_generator(
  state: Mapping[str, np.ndarray], where: str
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
  """Arrays of a generator with rosinality's names, and the mean style.

  Raises:
    WeightsError: the generator is conditional, which is not supported.
  """
  if any(name.startswith('mapping.embed.') for name in state):
    raise WeightsError(f'{where} has a conditional generator, which is not supported')
  arrays = {}
  for name, array in state.items():
    if match := re.fullmatch(r'mapping\.fc(\d+)\.(weight|bias)', name):
      arrays[f'style.{int(match[1]) + 1}.{match[2]}'] = array
    elif match := re.fullmatch(r'synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)', name):
      arrays |= _ada_layer(int(match[1]), match[2], match[3], array)
    elif name == 'synthesis.b4.const':
      arrays['input.input'] = array[None]
    elif name != 'mapping.w_avg' and not name.endswith('resample_filter'):
      arrays[name] = array  # An unknown name, which is an error later.
  return arrays, state.get('mapping.w_avg')


def _ada_layer(side: int, layer: str, leaf: str, array: np.ndarray) -> dict[str, np.ndarray]:
  level = max(side.bit_length() - 4, -1)
  if layer == 'torgb':
    prefix = 'to_rgb1' if level < 0 else f'to_rgbs.{level}'
    if leaf == 'bias':
      return {f'{prefix}.bias': array.reshape(1, -1, 1, 1)}
  else:
    index = 2 * level + (layer == 'conv1')
    prefix = 'conv1' if level < 0 else f'convs.{index}'
    if leaf == 'noise_const':
      return {f'noises.noise_{index + 1 if level >= 0 else 0}': array[None, None]}
  if leaf == 'resample_filter':
    return {}
  name, axes = _ADA_LAYER.get(leaf, (leaf, 0))
  return {f'{prefix}.{name}': array.reshape((1,) * axes + array.shape)}


def _from_ada_discriminator(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays of a discriminator with rosinality's names."""
  sides = {int(m[1]) for m in (re.match(r'b(\d+)\.', name) for name in state) if m}
  names = {
    'fromrgb': ('convs.0.0', 'convs.0.1'),
    'conv': ('final_conv.0', 'final_conv.1'),
    'fc': ('final_linear.0', 'final_linear.0'),
    'out': ('final_linear.1', 'final_linear.1'),
  }
  arrays = {}
  for name, array in state.items():
    match = re.fullmatch(r'b(\d+)\.(\w+)\.(weight|bias)', name)
    if name.endswith('resample_filter'):
      continue
    if not match:
      arrays[name] = array  # An unknown name, which is an error later.
      continue
    side, layer, leaf = int(match[1]), match[2], match[3]
    i = max(sides).bit_length() - side.bit_length() + 1
    block = {
      'conv0': (f'convs.{i}.conv1.0', f'convs.{i}.conv1.1'),
      'conv1': (f'convs.{i}.conv2.1', f'convs.{i}.conv2.2'),
      'skip': (f'convs.{i}.skip.1', ''),
    }
    weight, bias = (names | block).get(layer, (name, name))
    arrays[f'{weight if leaf == "weight" else bias}.{leaf}'] = array
  return arrays
