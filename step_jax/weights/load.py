"""Loads weights: a network with its parameters, or the heads of LPIPS."""

from collections.abc import Mapping, Sequence
import dataclasses
import zlib

import flax.traverse_util
import numpy as np

from step_jax.errors import WeightsError
from step_jax.models.features import (
  FEATURE_NETS,
  IMAGENET_MEAN,
  IMAGENET_STD,
  PIXEL_STD,
  FeatureNet,
)
from step_jax.models.inception import Inception
from step_jax.weights import nets, store
from step_jax.weights.convert import read

_RANDOM_SEED = 0


@dataclasses.dataclass(frozen=True)
class Features:
  """A frozen network, for `module.apply({'params': params}, images)`.

  Attributes:
    module: the network with its taps, for RGB `[B, H, W, 3]` in [-1, 1]; or Inception, for 0..255.
    params: float32 arrays of the layers that the taps need.
    label: `NET@` and the first 8 digits of the SHA-256 of the file, or `random`; for reports.
    sha256: SHA-256 of the file; '' for random features.
    lineage: origin of the weights: `torchvision`, `caffe-…`, `inception-2015-12-05`, or '' for
      random features.
  """

  module: FeatureNet | Inception
  params: dict
  label: str
  sha256: str
  lineage: str = ''


@dataclasses.dataclass(frozen=True)
class Heads:
  """The linear heads of LPIPS: weights of the channels of each tap.

  Attributes:
    net: feature network that they were fitted to, a key of `FEATURE_NETS`.
    weights: tap -> float32 `[C]`, not negative, in the order of the layers.
    label: `NAME@` and the first 8 digits of the SHA-256 of the file.
    sha256: SHA-256 of the file.
  """

  net: str
  weights: dict[str, np.ndarray]
  label: str
  sha256: str


def load_features(net: str, taps: Sequence[str], path: str = '') -> Features:
  """Loads a feature network from a file.

  Args:
    net: `vgg16`, `vgg19`, `squeezenet1_1` or `alexnet`.
    taps: layers whose activations are returned, see `models.features`.
    path: '': the file in the weights store; a file of any format that `convert` supports; or
      `random` for He-initialised parameters with a fixed seed, the same on every device.

  Raises:
    WeightsError: there is no such network, tap or file; or the file is damaged, of another network,
      or does not include the deepest tap.
  """
  if net not in FEATURE_NETS:
    raise WeightsError(f'no feature net is called {net!r}; there are {", ".join(FEATURE_NETS)}')
  needed = nets.layers_for(net, taps)
  module = FEATURE_NETS[net](taps=tuple(dict.fromkeys(taps)))
  if path == 'random':
    return Features(module, _tree(_random(net), needed), 'random', '')
  file = store.find(net, path)
  weights, sha256 = read(file, net)
  available = nets.present_layers(net, weights.arrays, str(file))
  if len(available) < len(needed):
    raise WeightsError(
      f'{file} holds {net} only up to {available[-1]} ({", ".join(available[1:])}), and taps '
      f'{", ".join(taps)} need {needed[-1]}; set features.taps to layers that it holds, or get '
      f'the whole net (step-jax weights get {net})'
    )
  params = _tree(weights.arrays, needed)
  return Features(module, params, f'{net}@{sha256[:8]}', sha256, weights.lineage)


def load_inception(path: str = '') -> Features:
  """Loads the network of the Fréchet Inception distance from a file.

  Args:
    path: '': the file in the weights store; or a file of any format that `convert` supports.

  Raises:
    WeightsError: the file does not exist, is damaged, or has something else.
  """
  weights, sha256 = read(store.find(nets.INCEPTION, path), nets.INCEPTION)
  params = _tree(weights.arrays, nets.layers(nets.INCEPTION))
  label = f'{nets.INCEPTION}@{sha256[:8]}'
  return Features(Inception(), params, label, sha256, weights.lineage)


def load_heads(name: str, path: str = '') -> Heads:
  """Loads the heads of LPIPS from a file.

  Args:
    name: `lpips_alex`, `lpips_vgg` or `lpips_squeeze`; append `_v0.0` for version 0.0. With heads
      of 0.0, the trunk gets pixels in [-1, 1] without further normalisation, as in the released
      code of that time.
    path: '': the file in the weights store; or a file of any format that `convert` supports.

  Raises:
    WeightsError: there are no such heads; or the file does not exist, is damaged, or has something
      else.
  """
  if name not in nets.HEADS:
    raise WeightsError(f'no heads are called {name!r}; there are {", ".join(nets.HEADS)}')
  weights, sha256 = read(store.find(name, path), name)
  return Heads(nets.HEADS[name][0], dict(weights.arrays), f'{name}@{sha256[:8]}', sha256)


def tap_weights(settings: Mapping) -> dict[str, float]:
  """Tap -> weight in perceptual losses, from the fields `features` of a configuration."""
  return dict(zip(settings['taps'], settings['tap_weights'], strict=True))


def _tree(arrays: dict[str, np.ndarray], layers: Sequence[str]) -> dict:
  """The arrays of some layers as a parameter tree."""
  chosen = {path: array for path, array in arrays.items() if nets.layer_of(path) in layers}
  return flax.traverse_util.unflatten_dict(chosen, sep='/')


def _random(net: str) -> dict[str, np.ndarray]:
  """He-initialised parameters (He et al. 2015): normal, variance 2 / fan-in; zero biases.

  Each array has its own stream of NumPy's legacy generator, whose output never changes, so a layer
  depends neither on the taps nor on the device.
  """
  arrays = {}
  for path, shape in nets.shapes(net).items():
    if path.endswith('kernel'):
      generator = np.random.RandomState([_RANDOM_SEED, zlib.crc32(path.encode())])
      scale = np.sqrt(2 / np.prod(shape[:-1]))
      arrays[path] = (scale * generator.standard_normal(shape)).astype(np.float32)
    else:
      arrays[path] = np.zeros(shape, np.float32)
  arrays['input/mean'] = np.array(IMAGENET_MEAN, np.float32)
  arrays['input/scale'] = np.float32(PIXEL_STD) / np.array(IMAGENET_STD, np.float32)
  return arrays
