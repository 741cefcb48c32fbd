"""Layers of our networks and LPIPS heads in order, with parameter names and shapes.

Names are flax paths joined by '/', such as `conv1_1/kernel`; `input` is the layer before the first.
"""

from collections.abc import Iterable, Mapping
import functools

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from step_jax.errors import WeightsError
from step_jax.models.features import FEATURE_NETS
from step_jax.models.inception import SIZE, Inception

INCEPTION = 'inception'
# LPIPS 0.1 (Zhang et al. 2018): heads -> network, and the numbers of channels of the taps.
_HEADS_01 = {
  'lpips_alex': (
    'alexnet',
    {'conv1': 64, 'conv2': 192, 'conv3': 384, 'conv4': 256, 'conv5': 256},
  ),
  'lpips_vgg': (
    'vgg16',
    {'conv1_2': 64, 'conv2_2': 128, 'conv3_3': 256, 'conv4_3': 512, 'conv5_3': 512},
  ),
  'lpips_squeeze': (
    'squeezenet1_1',
    {
      'conv1': 64,
      'fire3': 128,
      'fire5': 256,
      'fire6': 384,
      'fire7': 384,
      'fire8': 512,
      'fire9': 512,
    },
  ),
}
# Version 0.0 has the same shapes; its networks get pixels in [-1, 1] without normalisation.
_HEADS_00 = {f'{name}_v0.0': made_of for name, made_of in _HEADS_01.items()}
HEADS = _HEADS_01 | _HEADS_00
NAMES = (*FEATURE_NETS, INCEPTION, *HEADS)
# Files of these must be complete; of other networks, the first layers may be enough.
_WHOLE = (INCEPTION, *HEADS)


@functools.cache
def shapes(name: str) -> Mapping[str, tuple[int, ...]]:
  """Parameter name -> shape, in the order of the layers; HWIO kernels, heads `[C]`.

  Raises:
    WeightsError: no network or heads have that name.
  """
  if name in HEADS:
    return {tap: (channels,) for tap, channels in HEADS[name][1].items()}
  if name not in NAMES:
    raise WeightsError(f'no weights are called {name!r}; there are {", ".join(NAMES)}')
  if name == INCEPTION:
    image = jnp.zeros((1, SIZE, SIZE, 3))
    return _shapes(Inception(), image)
  plan = [layer for layer, _ in FEATURE_NETS[name].PLAN]
  image = jnp.zeros((1, 64, 64, 3))
  by_path = _shapes(FEATURE_NETS[name](taps=plan[-1:]), image)
  order = ['input', *plan]
  paths = sorted(by_path, key=lambda path: (order.index(layer_of(path)), path))
  return {path: by_path[path] for path in paths}


def _shapes(module: nn.Module, image: jax.Array) -> dict[str, tuple[int, ...]]:
  params = jax.eval_shape(module.init, jax.random.key(0), image)['params']
  arrays = flax.traverse_util.flatten_dict(params, sep='/')
  return {path: array.shape for path, array in arrays.items()}


def layer_of(path: str) -> str:
  """`fire2/squeeze/kernel` -> `fire2`."""
  return path.partition('/')[0]


def layers(name: str) -> list[str]:
  """The layers with parameters, in order; the first of a feature network is `input`."""
  return list(dict.fromkeys(layer_of(path) for path in shapes(name)))


def layers_for(net: str, taps: Iterable[str]) -> list[str]:
  """The layers with parameters that a feature network needs for its taps.

  Raises:
    WeightsError: the network has no such tap, or there are no taps.
  """
  plan = [layer for layer, _ in FEATURE_NETS[net].PLAN]
  taps = list(taps)
  if not taps:
    raise WeightsError(f'no taps of {net} are asked for; set features.taps to some of its layers')
  for tap in taps:
    if tap not in plan:
      raise WeightsError(
        f'{net} has no tap {tap!r}; set features.taps to some of {", ".join(plan)}'
      )
  reached = {'input', *plan[: max(plan.index(tap) for tap in taps) + 1]}
  return [layer for layer in layers(net) if layer in reached]


def present_layers(name: str, paths: Iterable[str], where: str) -> list[str]:
  """The layers in a file: the first layers of a feature network without gaps, or all layers.

  Raises:
    WeightsError: a layer in between, or a part of a layer, is missing.
  """
  paths = set(paths)
  present = [layer for layer in layers(name) if any(layer_of(path) == layer for path in paths)]
  expected = layers(name) if name in _WHOLE else layers(name)[: len(present)]
  for path in shapes(name):
    needed = layer_of(path) in expected or layer_of(path) in present
    if needed and path not in paths:
      raise WeightsError(f'{where} lacks {path} of {name}; get a complete file')
  return present
