"""Mapper: Gaussian noise to style codes, fitted by IMLE after training (StEP, sec. 3.4)."""

from collections.abc import Sequence

import flax.linen as nn
import jax


class Mapper(nn.Module):
  """Maps latents `[N, Z]` from N(0, I) to style codes `[N, Z]`: an MLP with tanh activations.

  Attributes:
    z_dim: length of a style code.
    hidden: sizes of the hidden layers.
  """

  z_dim: int = 8
  hidden: Sequence[int] = (128, 128, 128)

  @nn.compact
  def __call__(self, latent: jax.Array) -> jax.Array:
    x = latent
    for i, size in enumerate(self.hidden):
      x = nn.tanh(nn.Dense(size, kernel_init=nn.initializers.glorot_uniform(), name=f'dense{i}')(x))
    return nn.Dense(self.z_dim, kernel_init=nn.initializers.glorot_uniform(), name='out')(x)
