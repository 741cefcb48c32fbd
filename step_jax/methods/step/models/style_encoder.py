"""Style encoder: an image to a short style code (StEP, sec. 3.1).

The encoder of DRIT without norms.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.errors import DataError
from step_jax.models import layers

# The last map of smaller images has no pixels.
SMALLEST = 16


class StyleEncoder(nn.Module):
  """Maps RGB images `[B, H, W, 3]` in [-1, 1], with sides of at least 16 px, to style codes.

  Returns `(z, mean, logvar)`, each float32 `[B, z_dim]`, with `z = mean + exp(logvar / 2)`. This is
  a reparametrised sample with noise fixed to one, so both heads are trained and the code is
  deterministic. `sample` uses random noise, for variational baselines.

  Attributes:
    z_dim: length of a style code.
    width: channels of the first layer; the three blocks have 2, 3 and 4 times as many.
    pixel_norm: whether to apply pixel norm after each block.
    dtype: compute type of the convolutions.
    remat: see `layers.block`.

  Raises:
    DataError: the images are too small.
  """

  z_dim: int = 8
  width: int = 64
  pixel_norm: bool = True
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    height, width = image.shape[1:3]
    # An export may have symbolic sizes.
    if any(isinstance(side, int) and side < SMALLEST for side in (height, width)):
      raise DataError(
        f'an image of {width}x{height} px is too small for the style encoder, which needs '
        f'{SMALLEST} px per side: use larger images, or a larger data.resize and data.crop'
      )
    x = layers.Conv(self.width, 4, stride=2, dtype=self.dtype, name='conv0')(image)
    for i in range(3):
      block = layers.block(layers.BasicBlock, self.remat)
      x = block((i + 2) * self.width, dtype=self.dtype, name=f'block{i}')(x)
      if self.pixel_norm:
        x = layers.pixel_norm(x)
      self.sow('intermediates', 'stages', x)
    x = layers.global_average(layers.leaky_relu(x).astype(jnp.float32))
    mean = layers.Dense(self.z_dim, name='mean')(x)
    logvar = layers.Dense(self.z_dim, name='logvar')(x)
    return sample(mean, logvar, 1.0), mean, logvar


def sample(mean: jax.Array, logvar: jax.Array, noise: jax.Array | float) -> jax.Array:
  """A sample from N(mean, exp(logvar)), `[B, Z]` each: `mean + noise * exp(logvar / 2)`.

  Kingma and Welling (2014), eq. 10.
  """
  return mean + noise * jnp.exp(0.5 * logvar)
