"""LPIPS with whatever trunk has weights, named for what it is."""

from collections.abc import Callable
import dataclasses
import logging

import jax
import numpy as np

from step_jax import images, losses, weights
from step_jax.errors import WeightsError
from step_jax.models.features import PIXEL_STD

log = logging.getLogger(__name__)

NAMES = ('lpips_alex', 'lpips_vgg', 'lpips_squeeze')
# LPIPS normalises pixels in [-1, 1] by these, ImageNet's rounded (Zhang et al. 2018, released
# code).
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


@dataclasses.dataclass(frozen=True)
class Lpips:
  """A learned distance, ready to use.

  Attributes:
    name: `lpips_alex`, …; where the trunk is not the one that the heads were fitted to, the trunk's
      lineage is added, as in `lpips_squeeze~caffe-squeezenet`: an approximation.
    label: which weights files it is made of.
    params: parameters of trunk and heads, for `distance`.
    distance: `(params, x, y) -> float32 [B]` of uint8 pictures `[B, H, W, 3]`.
  """

  name: str
  label: str
  params: dict
  distance: Callable


def available() -> list[Lpips]:
  """Every LPIPS whose trunk and heads are in the store of weights."""
  found = []
  for name in NAMES:
    try:
      found.append(load(name))
    except WeightsError as error:
      log.debug('%s', error)
  return found


def load(name: str) -> Lpips:
  """LPIPS v0.1 of that name.

  Raises:
    WeightsError: its trunk or heads are not in the store.
  """
  heads = weights.load_heads(name)
  trunk = weights.load_features(heads.net, list(heads.weights))
  params = {'trunk': dict(trunk.params), 'heads': heads.weights}
  exact = trunk.lineage == 'torchvision'
  if exact:
    scale = (PIXEL_STD / (_SCALE * 127.5)).astype(np.float32)
    params['trunk']['input'] = {'mean': (_SHIFT + 1) * 127.5, 'scale': scale}

  def distance(params, x, y):
    with jax.default_matmul_precision('highest'):
      taps = [trunk.module.apply({'params': params['trunk']}, images.to_float(i)) for i in (x, y)]
      return losses.lpips(*taps, params['heads'])

  label = f'{trunk.label}+{heads.label}'
  return Lpips(name if exact else f'{name}~{trunk.lineage}', label, params, distance)
