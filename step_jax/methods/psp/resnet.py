"""ResNet-50 up to its pooled features (He et al. 2016), as in torchvision."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.methods.psp.torch_layers import Conv
from step_jax.models.features import max_pool
from step_jax.models.norms import BatchNorm

FEATURES = 2048
STAGES = (3, 4, 6, 3)


class Bottleneck(nn.Module):
  """Residual unit 1x1, 3x3, 1x1, `[B, H, W, in] -> [B, H / stride, W / stride, 4 * width]`.

  Attributes:
    width: inner channels.
    stride: stride of the 3x3 convolution.
    project: whether the shortcut is a convolution.
  """

  width: int
  stride: int = 1
  project: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    sizes = ((self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1))
    y = x
    for i, size in enumerate(sizes):
      y = BatchNorm(name=f'bn{i}')(Conv(*size, name=f'conv{i}')(y), train)
      y = nn.relu(y) if i < 2 else y
    if self.project:
      x = Conv(4 * self.width, 1, self.stride, name='shortcut')(x)
      x = BatchNorm(name='shortcut_bn')(x, train)
    return nn.relu(x + y)


class ResNet50(nn.Module):
  """Images of any size to features, `[B, H, W, C] -> [B, 2048]`, at least 0.

  Images are not normalised here; for weights that need it, the caller normalises them.
  """

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    x = Conv(64, 7, 2, name='conv')(x)
    x = nn.relu(BatchNorm(name='bn')(x, train))
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    x = max_pool(x, 3, ceil=False)
    for stage, depth in enumerate(STAGES):
      for i in range(depth):
        stride = 2 if stage and not i else 1
        name = f'stage{stage}_unit{i}'
        x = Bottleneck(64 * 2**stage, stride, project=not i, name=name)(x, train)
    return jnp.mean(x, axis=(1, 2))
