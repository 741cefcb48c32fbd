"""Loads published checkpoints, `<epoch>_net_G.pth` and `<epoch>_net_D.pth`, as networks."""

from collections.abc import Iterator, Mapping
import os
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from step_jax import places
from step_jax.errors import WeightsError
from step_jax.methods.superstylenet import torch_state
from step_jax.methods.superstylenet.discriminator import Discriminator
from step_jax.methods.superstylenet.generator import Generator
from step_jax.weights import readers
from step_jax.weights.convert import read_array


class Imported(NamedTuple):
  """A network of a published checkpoint.

  Attributes:
    module: a `Generator` or `Discriminator` with the widths and number of labels of the file.
    params: parameters.
    stats: collection (`batch_stats`, `spectral`) -> statistics.
  """

  module: nn.Module
  params: dict[str, Any]
  stats: dict[str, Any]

  @property
  def variables(self) -> dict[str, Any]:
    """Variables for `module.apply`."""
    return {'params': self.params, **self.stats}


class _StateDict(Mapping):
  """Arrays of a file by name, read on access; a quarter of them is never used."""

  def __init__(self, path: pathlib.Path):
    self._where = str(path)
    self._tensors, _ = readers.read(path)
    # PyTorch's parallel training wraps the network in a module of this name.
    prefix = 'module.' if all(name.startswith('module.') for name in self._tensors) else ''
    self._names = {name.removeprefix(prefix): name for name in self._tensors}

  def __getitem__(self, name: str) -> np.ndarray:
    return read_array(self._tensors, self._names[name], self._where)

  def __contains__(self, name: object) -> bool:
    return name in self._names

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)


def load_generator(path: str | os.PathLike, num_upsamplings: int = 5) -> Imported:
  """Reads a generator; its widths and number of labels are determined by the shapes in the file.

  Args:
    path: the file, in any supported format of weights.
    num_upsamplings: number of upsamplings, which shapes do not determine: 5 for networks trained
      with `--num_upsampling_layers normal`, the default of the original, 6 for `more`.

  Raises:
    WeightsError: the file is damaged, or is not a generator of SuperStyleNet.
  """
  path = places.expand(path)
  params, stats = _translated(torch_state.generator, path)
  num_labels = params['fc']['kernel'].shape[2]
  norm = params['head_0']['ace_0']
  if 'label_kernel' not in norm:
    raise WeightsError(
      f'{path} is not a generator of SuperStyleNet: it has no layers of labels; give *_net_G.pth'
    )
  _, style_size, label_width = norm['label_kernel'].shape
  module = Generator(
    num_labels,
    style_size=style_size,
    width=params['conv_img']['kernel'].shape[2],
    num_upsamplings=num_upsamplings,
    label_width=label_width,
    spade_width=norm['spade_shared']['kernel'].shape[3],
  )
  side = 2**num_upsamplings
  args = jnp.zeros((1, side, side), jnp.int32), jnp.zeros((1, num_labels, style_size))
  return _checked(Imported(module, params, stats), args, path)


def load_discriminator(path: str | os.PathLike) -> Imported:
  """Reads a two-scale discriminator.

  Args:
    path: the file, in any supported format of weights.

  Raises:
    WeightsError: the file is damaged, or is not a discriminator of SuperStyleNet.
  """
  path = places.expand(path)
  params, stats = _translated(torch_state.discriminator, path)
  *_, inputs, width = params['scale_0']['conv_0']['kernel'].shape
  module = Discriminator(inputs - 3, width)
  args = jnp.zeros((1, 16, 16), jnp.int32), jnp.zeros((1, 16, 16, 3))
  return _checked(Imported(module, params, stats), args, path)


def _translated(translate, path):
  try:
    return translate(_StateDict(path))
  except WeightsError as error:
    raise WeightsError(f'{path}: {error}') from error
  except (ValueError, IndexError) as error:  # Arrays with another number of axes.
    raise WeightsError(
      f'{path} has arrays of other shapes than SuperStyleNet; give a file of this network'
    ) from error


def _checked(params, args, path):
  """Checks that the arrays are exactly those of the module, and returns the network."""
  expected = jax.eval_shape(params.module.init, jax.random.key(0), *args)
  shapes = lambda tree: {
    jax.tree_util.keystr(key, simple=True, separator='/'): x.shape
    for key, x in jax.tree.leaves_with_path(tree)
  }
  expected, actual = shapes(expected), shapes(params.variables)
  for name in sorted(expected.keys() | actual.keys()):
    if expected.get(name) != actual.get(name):
      raise WeightsError(
        f'{path} does not fit: {name} is {actual.get(name, "missing")}, expected '
        f'{expected.get(name, "none")}; give a file of SuperStyleNet'
      )
  return params
