"""LPIPS with whatever weights there are, named for what it is."""

from collections.abc import Mapping
import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import images, losses, models, weights
from step_jax.errors import WeightsError
from step_jax.models.features import PIXEL_STD

log = logging.getLogger(__name__)

NETS = ('alex', 'vgg', 'squeeze')
VERSIONS = ('0.1', '0.0')
# LPIPS 0.1 normalises pixels in [-1, 1] by these, ImageNet's rounded; 0.0 takes them as they are
# (Zhang et al. 2018, released code).
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


@dataclasses.dataclass(frozen=True)
class Lpips:
  """A learned distance, ready to use.

  Attributes:
    name: `lpips-alex-0.1`, …; where the trunk is not the one that the heads were fitted to, its
      lineage is added, as in `lpips-squeeze-0.1~caffe-squeezenet`: an approximation.
    weights: SHA-256 of the files of trunk and heads.
    trunk: the feature net.
    params: parameters of trunk and heads, for the methods.
  """

  name: str
  weights: str
  trunk: models.FeatureNet
  params: Mapping

  def features(self, params: Mapping, pictures: jax.Array) -> dict[str, jax.Array]:
    """Taps of uint8 pictures `[B, H, W, 3]`, for `compare`."""
    with jax.default_matmul_precision('highest'):
      return self.trunk.apply({'params': params['trunk']}, images.to_float(pictures))

  def compare(self, params: Mapping, x: Mapping, y: Mapping) -> jax.Array:
    """Distance of pictures given by their `features`: float32 `[B]`."""
    return losses.lpips(x, y, params['heads'])

  def between_all(self, params: Mapping, x: Mapping) -> jax.Array:
    """Distances between all pictures of a batch, given by their `features`: float32 `[B, B]`."""
    vectors = losses.lpips_vector(x, params['heads'])
    # Distances do not change when all vectors move alike; near the origin products round less.
    vectors -= jnp.mean(vectors, axis=0)
    products = jnp.matmul(vectors, vectors.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.diagonal(products)
    return jnp.maximum(squares[:, None] + squares - 2 * products, 0)


def available() -> list[Lpips]:
  """Every LPIPS whose trunk and heads are there: that of the package, and those in the store."""
  nets = []
  for version in VERSIONS:
    for net in NETS:
      try:
        nets.append(load(net, version))
      except WeightsError as error:
        log.debug('%s', error)
  return nets


def load(net: str, version: str = '0.1') -> Lpips:
  """LPIPS with the trunk `alex`, `vgg` or `squeeze`.

  Raises:
    WeightsError: its trunk or heads are not in the store.
  """
  heads = weights.load_heads(f'lpips_{net}' + ('' if version == '0.1' else f'_v{version}'))
  trunk = weights.load_features(heads.net, list(heads.weights))
  exact = trunk.lineage == 'torchvision'
  params = {'trunk': dict(trunk.params), 'heads': heads.weights}
  if exact:
    shift, scale = (_SHIFT, _SCALE) if version == '0.1' else (np.zeros(3), np.ones(3))
    params['trunk']['input'] = {
      'mean': ((shift + 1) * 127.5).astype(np.float32),
      'scale': (PIXEL_STD / (scale * 127.5)).astype(np.float32),
    }
  name = f'lpips-{net}-{version}' + ('' if exact else f'~{trunk.lineage}')
  return Lpips(name, f'{trunk.sha256} {heads.sha256}', trunk.module, params)
