"""LPIPS with the available weights, with names that state the version and the network."""

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
# LPIPS 0.1 normalises pixels in [-1, 1] by these rounded ImageNet statistics; 0.0 does not (Zhang
# et al. 2018, released code).
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


@dataclasses.dataclass(frozen=True)
class Lpips:
  """A learned perceptual distance.

  Attributes:
    name: name, such as `lpips-alex-0.1`. If the heads were not fitted to the trunk, the origin of
      the trunk is appended, as in `lpips-squeeze-0.1~caffe-squeezenet`; this is an approximation.
    weights: SHA-256 of the files of trunk and heads.
    trunk: the feature network.
    params: parameters of trunk and heads, for the methods of this class.
  """

  name: str
  weights: str
  trunk: models.FeatureNet
  params: Mapping

  def features(self, params: Mapping, pictures: jax.Array) -> dict[str, jax.Array]:
    """Features of uint8 images `[B, H, W, 3]`, for `compare`."""
    with jax.default_matmul_precision('highest'):
      return self.trunk.apply({'params': params['trunk']}, images.to_float(pictures))

  def compare(self, params: Mapping, x: Mapping, y: Mapping) -> jax.Array:
    """Distances of images, given their `features`: float32 `[B]`."""
    return losses.lpips(x, y, params['heads'])

  def between_all(self, params: Mapping, x: Mapping) -> jax.Array:
    """Distances between all images of a batch, given their `features`: float32 `[B, B]`."""
    vectors = losses.lpips_vector(x, params['heads'])
    # Centring does not change distances, and reduces rounding errors of products.
    vectors -= jnp.mean(vectors, axis=0)
    products = jnp.matmul(vectors, vectors.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.diagonal(products)
    return jnp.maximum(squares[:, None] + squares - 2 * products, 0)


def available() -> list[Lpips]:
  """All LPIPS variants whose trunk and heads are bundled or in the weights store."""
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
    WeightsError: its trunk or heads are not in the weights store.
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
