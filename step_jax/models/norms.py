"""Normalisation layers with the statistics of PyTorch, for weights trained with PyTorch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class BatchNorm(nn.Module):
  """Batch normalisation as in `torch.nn.BatchNorm1d` and `BatchNorm2d`, `[B, …, C]`.

  Training normalises by the mean and the biased variance over all axes but the last, and updates
  the running mean and the running unbiased variance (Flax keeps the biased one). Evaluation
  normalises by the running statistics. The mean over the batch axis of a sharded array is the mean
  over all devices, so under `jax.jit` the statistics are synchronised.

  Statistics are the variables `mean` and `var`, `[C]`, of the collection `batch_stats`, which must
  be mutable in training. They are computed at least in float32.

  Attributes:
    momentum: weight of the new statistics in the running ones, as in PyTorch (Flax: 1 - this).
    epsilon: added to the variance.
    affine: whether the output is scaled and shifted by the parameters `scale` and `bias`, `[C]`.

  Raises:
    ValueError: training on one value per channel, which has no variance.
  """

  momentum: float = 0.1
  epsilon: float = 1e-5
  affine: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    channels = x.shape[-1:]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if train:
      count = int(np.prod(x.shape[:-1]))
      if count < 2:
        raise ValueError(
          f'batch norm got one value per channel to train on, {list(x.shape)}; use a larger batch'
        )
      axes = tuple(range(x.ndim - 1))
      mean = jnp.mean(wide, axis=axes)
      var = jnp.mean(jnp.square(wide - mean), axis=axes)
      if not self.is_initializing():
        unbiased = var * (count / (count - 1))
        running_mean.value += self.momentum * (mean - running_mean.value)
        running_var.value += self.momentum * (unbiased - running_var.value)
    else:
      mean, var = running_mean.value, running_var.value
    factor = jax.lax.rsqrt(var + self.epsilon)
    if self.affine:
      factor *= self.param('scale', nn.initializers.ones, channels)
      shift = self.param('bias', nn.initializers.zeros, channels)
    else:
      shift = 0.0
    # Subtract the mean first: products with a large mean would lose the deviations to rounding.
    return ((wide - mean) * factor + shift).astype(x.dtype)
