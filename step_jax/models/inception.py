"""Inception-v3 of the Fréchet Inception distance, up to its pooled features.

This is the TensorFlow graph of 2015-12-05 (Szegedy et al. 2016) used by Heusel et al. 2017. It
differs from torchvision's network: average pools exclude the padding, and the last block has a max
pool where the paper has an average pool. Layers have the names of pytorch-fid's port of the graph,
whose weights file `step_jax.weights` reads.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

SIZE = 299
FEATURES = 2048
# Centre of the pixel range in TensorFlow's graph, and in pytorch-fid.
TENSORFLOW_CENTER = 128.0
PYTORCH_FID_CENTER = 127.5
_EPSILON = 1e-3


class FrozenBatchNorm(nn.Module):
  """Batch normalisation (Ioffe and Szegedy 2015) with fixed statistics stored as parameters."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale, bias, mean, var = (
      self.param(name, nn.initializers.constant(value), x.shape[-1:], jnp.float32)
      for name, value in (('scale', 1.0), ('bias', 0.0), ('mean', 0.0), ('var', 1.0))
    )
    return (x - mean) * (scale * jax.lax.rsqrt(var + _EPSILON)) + bias


class Unit(nn.Module):
  """Convolution without bias, batch normalisation, ReLU.

  Attributes:
    features: output channels.
    size: height and width of the kernel.
    stride: stride in both directions; with 2 there is no padding.
    padded: whether stride 1 pads to the size of the input.
  """

  features: int
  size: tuple[int, int] = (1, 1)
  stride: int = 1
  padded: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.Conv(
      self.features,
      self.size,
      self.stride,
      padding='SAME' if self.padded and self.stride == 1 else 'VALID',
      use_bias=False,
      # The distance is a small difference of large numbers, so bfloat16 products are too coarse.
      precision=jax.lax.Precision.HIGHEST,
      kernel_init=nn.initializers.he_normal(),
      name='conv',
    )(x)
    return nn.relu(FrozenBatchNorm(name='bn')(x))


def _chain(name: str, x: jax.Array, *units: tuple) -> jax.Array:
  """Units in sequence, named `NAME_1`, `NAME_2`, …; each is `(features, size, stride)`."""
  for i, unit in enumerate(units, 1):
    x = Unit(*unit, name=f'{name}_{i}')(x)
  return x


def _fork(name: str, x: jax.Array, features: int) -> list[jax.Array]:
  """A 1x3 and a 3x1 convolution in parallel, named `NAMEa` and `NAMEb`."""
  return [
    Unit(features, (1, 3), name=f'{name}a')(x),
    Unit(features, (3, 1), name=f'{name}b')(x),
  ]


def _average_pool(x: jax.Array) -> jax.Array:
  """3x3 average pooling of `[B, H, W, C]` with stride 1; padding does not count."""
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


def _max_pool(x: jax.Array) -> jax.Array:
  """3x3 max pooling of `[B, H, W, C]` with stride 2."""
  return nn.max_pool(x, (3, 3), (2, 2))


class InceptionA(nn.Module):
  """Block at 35x35: 1x1, 5x5, two 3x3, and an average pool with `pool_features` channels."""

  pool_features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    branches = [
      Unit(64, name='branch1x1')(x),
      _chain('branch5x5', x, (48,), (64, (5, 5))),
      _chain('branch3x3dbl', x, (64,), (96, (3, 3)), (96, (3, 3))),
      Unit(self.pool_features, name='branch_pool')(_average_pool(x)),
    ]
    return jnp.concatenate(branches, axis=-1)


class InceptionB(nn.Module):
  """From 35x35 to 17x17: 3x3, two 3x3, and a max pool."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    branches = [
      Unit(384, (3, 3), 2, name='branch3x3')(x),
      _chain('branch3x3dbl', x, (64,), (96, (3, 3)), (96, (3, 3), 2)),
      _max_pool(x),
    ]
    return jnp.concatenate(branches, axis=-1)


class InceptionC(nn.Module):
  """Block at 17x17: 1x1, 7x7 as 1x7 and 7x1 with `inner` channels between, and an average pool."""

  inner: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    row, column = (1, 7), (7, 1)
    inner = self.inner
    branches = [
      Unit(192, name='branch1x1')(x),
      _chain('branch7x7', x, (inner,), (inner, row), (192, column)),
      _chain(
        'branch7x7dbl', x, (inner,), (inner, column), (inner, row), (inner, column), (192, row)
      ),
      Unit(192, name='branch_pool')(_average_pool(x)),
    ]
    return jnp.concatenate(branches, axis=-1)


class InceptionD(nn.Module):
  """From 17x17 to 8x8: 3x3, 7x7 and 3x3, and a max pool."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    branches = [
      _chain('branch3x3', x, (192,), (320, (3, 3), 2)),
      _chain('branch7x7x3', x, (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2)),
      _max_pool(x),
    ]
    return jnp.concatenate(branches, axis=-1)


class InceptionE(nn.Module):
  """Block at 8x8: 1x1, 3x3 and double 3x3 that end in parallel 1x3 and 3x1, and a pool.

  Attributes:
    max_pool: max instead of average pooling; TensorFlow's graph has it in the last block.
  """

  max_pool: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    pooled = nn.max_pool(x, (3, 3), padding='SAME') if self.max_pool else _average_pool(x)
    single = Unit(384, name='branch3x3_1')(x)
    double = _chain('branch3x3dbl', x, (448,), (384, (3, 3)))
    branches = [
      Unit(320, name='branch1x1')(x),
      *_fork('branch3x3_2', single, 384),
      *_fork('branch3x3dbl_3', double, 384),
      Unit(192, name='branch_pool')(pooled),
    ]
    return jnp.concatenate(branches, axis=-1)


class Inception(nn.Module):
  """RGB images float32 `[B, 299, 299, 3]` in 0..255 to features float32 `[B, 2048]`, at least 0.

  Resize images with `evaluate.resizing`, because other resizers give other distances.

  Attributes:
    center: pixels are normalised as `(x - center) / center`. TensorFlow's graph, clean-fid and
      torch-fidelity use 128; pytorch-fid uses 127.5, which gives exactly [-1, 1].

  Raises:
    ValueError: the images have another size.
  """

  center: float = TENSORFLOW_CENTER

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    if image.shape[1:] != (SIZE, SIZE, 3):
      raise ValueError(f'Inception takes [B, {SIZE}, {SIZE}, 3], not {list(image.shape)}; resize')
    x = (image.astype(jnp.float32) - self.center) / self.center
    x = Unit(32, (3, 3), 2, name='Conv2d_1a_3x3')(x)
    x = Unit(32, (3, 3), padded=False, name='Conv2d_2a_3x3')(x)
    x = _max_pool(Unit(64, (3, 3), name='Conv2d_2b_3x3')(x))
    x = Unit(80, name='Conv2d_3b_1x1')(x)
    x = _max_pool(Unit(192, (3, 3), padded=False, name='Conv2d_4a_3x3')(x))
    for name, pool_features in (('Mixed_5b', 32), ('Mixed_5c', 64), ('Mixed_5d', 64)):
      x = InceptionA(pool_features, name=name)(x)
    x = InceptionB(name='Mixed_6a')(x)
    for name, inner in (('Mixed_6b', 128), ('Mixed_6c', 160), ('Mixed_6d', 160), ('Mixed_6e', 192)):
      x = InceptionC(inner, name=name)(x)
    x = InceptionD(name='Mixed_7a')(x)
    x = InceptionE(name='Mixed_7b')(x)
    x = InceptionE(max_pool=True, name='Mixed_7c')(x)
    return jnp.mean(x, axis=(1, 2))
