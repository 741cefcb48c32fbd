"""StEP's networks in PyTorch, NCHW, with the parameter names of Flax.

They use PyTorch's own convolutions, norms and pooling, with explicit padding where PyTorch does not
support that of the original.
"""

from collections.abc import Sequence

import torch
from torch import nn
import torch.nn.functional as F

from step_jax.methods.step.models import generator as generator_lib
from step_jax.models import features as features_lib
from step_jax.models import layers


def pad_same(x: torch.Tensor, size: int, stride: int) -> tuple[torch.Tensor, int]:
  """Pads as TensorFlow's 'SAME'; returns symmetric padding for the convolution instead."""
  totals = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[-2:]]
  if totals[0] == totals[1] and totals[0] % 2 == 0:
    return x, totals[0] // 2
  (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
  return F.pad(x, (left, right, top, bottom)), 0


class Conv(nn.Module):
  """`layers.Conv`: an equalised convolution."""

  def __init__(self, inputs, features, size, stride=1, slope=layers.LEAKY_SLOPE, upsample=False):
    super().__init__()
    self.kernel = nn.Parameter(torch.randn(features, inputs, size, size))
    self.bias = nn.Parameter(torch.zeros(features))
    self.scale = layers.he_scale((size, size, inputs, features), slope)
    self.size, self.stride, self.upsample = size, stride, upsample

  def forward(self, x):
    if self.upsample:
      x = F.interpolate(x, scale_factor=2.0, mode='nearest')
    x, padding = pad_same(x, self.size, self.stride)
    return F.conv2d(x, self.kernel * self.scale, self.bias, self.stride, padding)


class Dense(nn.Module):
  """`layers.Dense`."""

  def __init__(self, inputs, features):
    super().__init__()
    self.kernel = nn.Parameter(0.02 * torch.randn(inputs, features))
    self.bias = nn.Parameter(torch.zeros(features))

  def forward(self, x):
    return torch.addmm(self.bias, x, self.kernel)


class InstanceNorm(nn.Module):
  """`layers.InstanceNorm`, as PyTorch's instance norm or as group norm with one channel per group.

  Which one is faster depends on the memory format.
  """

  grouped = False

  def __init__(self, channels):
    super().__init__()
    self.gamma = nn.Parameter(torch.ones(channels))
    self.beta = nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    wide = x.float()
    if self.grouped:
      y = F.group_norm(wide, x.shape[1], self.gamma, self.beta, layers.NORM_EPSILON)
    else:
      y = F.instance_norm(wide, weight=self.gamma, bias=self.beta, eps=layers.NORM_EPSILON)
    return y.to(x.dtype)


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
  """`layers.pixel_norm`."""
  mean_square = x.float().square().mean(dim=1, keepdim=True)
  return x * torch.rsqrt(mean_square + layers.PIXEL_NORM_EPSILON).to(x.dtype)


def leaky_relu(x: torch.Tensor) -> torch.Tensor:
  """`layers.leaky_relu`."""
  return F.leaky_relu(x, layers.LEAKY_SLOPE)


def concat_code(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
  """`layers.concat_code`."""
  tiled = z.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[-2:])
  return torch.cat([x, tiled], dim=1)


def concat_minibatch_stddev(x: torch.Tensor) -> torch.Tensor:
  """`layers.concat_minibatch_stddev` for one mini-batch."""
  variance = x.float().var(dim=0, unbiased=False)
  statistic = (variance + layers.PIXEL_NORM_EPSILON).sqrt().mean().to(x.dtype)
  return torch.cat([x, statistic.expand(x.shape[0], 1, *x.shape[-2:])], dim=1)


class BasicBlock(nn.Module):
  """`layers.BasicBlock`."""

  def __init__(self, inputs, features):
    super().__init__()
    self.conv0 = Conv(inputs, features, 3, slope=1.0)
    self.conv1 = Conv(features, features, 3, slope=1.0)
    self.shortcut = Conv(inputs, features, 1, slope=1.0)

  def forward(self, x):
    y = self.conv1(leaky_relu(self.conv0(leaky_relu(x))))
    return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))


class ResBlock(nn.Module):
  """`layers.ResBlock`."""

  def __init__(self, channels):
    super().__init__()
    for i in range(2):
      self.add_module(f'conv{i}', Conv(channels, channels, 3, slope=1.0))
      self.add_module(f'norm{i}', InstanceNorm(channels))

  def forward(self, x):
    y = F.relu(self.norm0(self.conv0(x)))
    return x + self.norm1(self.conv1(y))


class StyleEncoder(nn.Module):
  """`nets.StyleEncoder` with pixel norm."""

  def __init__(self, z_dim=8, width=64):
    super().__init__()
    self.conv0 = Conv(3, width, 4, stride=2)
    for i in range(3):
      self.add_module(f'block{i}', BasicBlock((i + 1) * width, (i + 2) * width))
    self.mean = Dense(4 * width, z_dim)
    self.logvar = Dense(4 * width, z_dim)

  def forward(self, pictures):
    x = self.conv0(pictures)
    for block in (self.block0, self.block1, self.block2):
      x = pixel_norm(block(x))
    x = leaky_relu(x).float().mean(dim=(2, 3))
    with torch.autocast(x.device.type, enabled=False):
      mean, logvar = self.mean(x), self.logvar(x)
    return mean + torch.exp(0.5 * logvar), mean, logvar


class ContentEncoder(nn.Module):
  """`models.generator.ContentEncoder`."""

  def __init__(self, width):
    super().__init__()
    self.conv0 = Conv(3, width, 7)
    self.norm0 = InstanceNorm(width)
    for i in range(generator_lib.NUM_DOWN):
      self.add_module(f'down{i}', Conv(width * 2**i, width * 2 ** (i + 1), 3, stride=2))
      self.add_module(f'down_norm{i}', InstanceNorm(width * 2 ** (i + 1)))
    for i in range(generator_lib.NUM_RES):
      self.add_module(f'res{i}', ResBlock(width * 2**generator_lib.NUM_DOWN))

  def forward(self, source):
    x = F.relu(self.norm0(self.conv0(source)))
    features = [x]
    for i in range(generator_lib.NUM_DOWN):
      x = F.relu(getattr(self, f'down_norm{i}')(getattr(self, f'down{i}')(x)))
      features.append(x)
    for i in range(generator_lib.NUM_RES):
      x = getattr(self, f'res{i}')(x)
    return features + [x]


class UpBlock(nn.Module):
  """`models.generator.UpBlock`."""

  def __init__(self, inputs, features):
    super().__init__()
    self.conv0 = Conv(inputs, features, 3, upsample=True)
    self.conv1 = Conv(features, features, 3)

  def forward(self, x):
    x = pixel_norm(F.relu(self.conv0(x)))
    return pixel_norm(F.relu(self.conv1(x)))


class Decoder(nn.Module):
  """`models.generator.Decoder` with skip connections, and the code in every block."""

  def __init__(self, z_dim, width):
    super().__init__()
    deepest = generator_lib.NUM_DOWN
    channels = width * 2**deepest + z_dim
    for i in range(generator_lib.NUM_RES):
      self.add_module(f'res{i}', ResBlock(channels))
    for level in reversed(range(1, deepest + 1)):
      features = width * 2 ** (level - 1)
      self.add_module(f'up{level}', UpBlock(width * 2**level + channels + z_dim, features))
      channels = features
    self.rgb = Conv(2 * width + z_dim, 3, 1)

  def forward(self, features, z):
    x = concat_code(features[-1], z)
    for i in range(generator_lib.NUM_RES):
      x = getattr(self, f'res{i}')(x)
    for level in reversed(range(1, generator_lib.NUM_DOWN + 1)):
      x = getattr(self, f'up{level}')(concat_code(torch.cat([features[level], x], dim=1), z))
    x = self.rgb(concat_code(torch.cat([features[0], x], dim=1), z))
    return torch.tanh(x.float())


class Generator(nn.Module):
  """`nets.Generator`."""

  def __init__(self, z_dim=8, width=32):
    super().__init__()
    self.content_encoder = ContentEncoder(width)
    self.decoder = Decoder(z_dim, width)

  def forward(self, source, z):
    return self.decoder(self.content_encoder(source), z)


class PatchDiscriminator(nn.Module):
  """`models.discriminator.PatchDiscriminator`."""

  def __init__(self, width):
    super().__init__()
    self.conv0 = Conv(6, width, 4, stride=2)
    self.conv1 = Conv(width, 2 * width, 4, stride=2)
    self.norm1 = InstanceNorm(2 * width)
    self.conv2 = Conv(2 * width, 4 * width, 4, stride=2)
    self.norm2 = InstanceNorm(4 * width)
    self.conv3 = Conv(4 * width + 1, 8 * width, 4)
    self.norm3 = InstanceNorm(8 * width)
    self.logits = Conv(8 * width, 1, 4)

  def forward(self, x):
    x = leaky_relu(self.conv0(x))
    x = leaky_relu(self.norm1(self.conv1(x)))
    x = leaky_relu(self.norm2(self.conv2(x)))
    x = leaky_relu(self.norm3(self.conv3(concat_minibatch_stddev(x))))
    return self.logits(x).float()


class MultiScaleDiscriminator(nn.Module):
  """`nets.MultiScaleDiscriminator` for one mini-batch."""

  def __init__(self, width=32, num_scales=3):
    super().__init__()
    self.num_scales = num_scales
    for i in range(num_scales):
      self.add_module(f'scale{i}', PatchDiscriminator(width))

  def forward(self, pictures, source):
    x = torch.cat([pictures, source], dim=1)
    logits = []
    for i in range(self.num_scales):
      if i:
        x = F.avg_pool2d(x, 2)
      logits.append(getattr(self, f'scale{i}')(x))
    return logits


class Input(nn.Module):
  """`models.features.Input`."""

  def __init__(self):
    super().__init__()
    self.mean = nn.Parameter(torch.zeros(3), requires_grad=False)
    self.scale = nn.Parameter(torch.ones(3), requires_grad=False)

  def forward(self, pictures):
    mean, scale = self.mean[:, None, None], self.scale[:, None, None]
    return ((pictures + 1.0) * 127.5 - mean) * scale


class TrunkConv(nn.Module):
  """`models.features.TrunkConv` with 3x3 kernel and ReLU; frozen."""

  def __init__(self, inputs, features):
    super().__init__()
    self.kernel = nn.Parameter(torch.zeros(features, inputs, 3, 3), requires_grad=False)
    self.bias = nn.Parameter(torch.zeros(features), requires_grad=False)

  def forward(self, x):
    return F.relu(F.conv2d(x, self.kernel, self.bias, padding=1))


class VGG16(nn.Module):
  """`models.VGG16` up to the last tap; frozen."""

  def __init__(self, taps: Sequence[str]):
    super().__init__()
    self.taps = tuple(taps)
    self.input = Input()
    names = [name for name, _ in features_lib.VGG16.PLAN]
    self.names = names[: max(names.index(tap) for tap in taps) + 1]
    inputs, width = 3, {'1': 64, '2': 128, '3': 256, '4': 512, '5': 512}
    for name in self.names:
      if name.startswith('conv'):
        self.add_module(name, TrunkConv(inputs, width[name[4]]))
        inputs = width[name[4]]

  def forward(self, pictures):
    x = self.input(pictures)
    activations = []
    for name in self.names:
      x = getattr(self, name)(x) if name.startswith('conv') else F.max_pool2d(x, 2, ceil_mode=True)
      if name in self.taps:
        activations.append(x)
    return activations
