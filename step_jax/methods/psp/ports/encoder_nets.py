"""pSp's encoder and the network of LPIPS in PyTorch, NCHW, with the variable names of Flax."""

import math

import torch
from torch import nn
import torch.nn.functional as F

from step_jax.methods.psp import encoders, irse
from step_jax.methods.psp.ports.nets import EqualLinear


class Conv(nn.Module):
  """`torch_layers.Conv`."""

  def __init__(self, inputs, features, size, stride=1, bias=False):
    super().__init__()
    self.kernel = nn.Parameter(torch.zeros(features, inputs, size, size))
    self.bias = nn.Parameter(torch.zeros(features)) if bias else None
    self.stride, self.padding = stride, size // 2

  def forward(self, x):
    return F.conv2d(x, self.kernel, self.bias, self.stride, self.padding)


class BatchNorm(nn.Module):
  """`models.norms.BatchNorm` in training."""

  def __init__(self, channels):
    super().__init__()
    self.scale = nn.Parameter(torch.ones(channels))
    self.bias = nn.Parameter(torch.zeros(channels))
    self.register_buffer('mean', torch.zeros(channels))
    self.register_buffer('var', torch.ones(channels))

  def forward(self, x):
    return F.batch_norm(x, self.mean, self.var, self.scale, self.bias, True, 0.1, 1e-5)


class PReLU(nn.Module):
  """`torch_layers.PReLU`."""

  def __init__(self, channels):
    super().__init__()
    self.slope = nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    return F.prelu(x, self.slope)


class SqueezeExcite(nn.Module):
  """`irse.SqueezeExcite`."""

  def __init__(self, channels):
    super().__init__()
    self.fc1, self.fc2 = Conv(channels, channels // 16, 1), Conv(channels // 16, channels, 1)

  def forward(self, x):
    y = F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
    return x * torch.sigmoid(self.fc2(y))


class Unit(nn.Module):
  """`irse.Unit`."""

  def __init__(self, inputs, features, stride):
    super().__init__()
    self.bn0, self.conv0, self.prelu = BatchNorm(inputs), Conv(inputs, features, 3), PReLU(features)
    self.conv1, self.bn1 = Conv(features, features, 3, stride), BatchNorm(features)
    self.se, self.stride = SqueezeExcite(features), stride
    if inputs != features:
      self.shortcut, self.shortcut_bn = Conv(inputs, features, 1, stride), BatchNorm(features)

  def forward(self, x):
    y = self.se(self.bn1(self.conv1(self.prelu(self.conv0(self.bn0(x))))))
    if hasattr(self, 'shortcut'):
      return y + self.shortcut_bn(self.shortcut(x))
    return y + x[:, :, :: self.stride, :: self.stride]


class Body(nn.Module):
  """`irse.Body`."""

  def __init__(self, channels, depths, widths):
    super().__init__()
    self.conv, self.bn, self.prelu = Conv(channels, widths[0], 3), *_norm(widths[0])
    self.ends, inputs, unit = [], widths[0], 0
    for depth, width in zip(depths, widths, strict=True):
      for i in range(depth):
        self.add_module(f'unit{unit}', Unit(inputs, width, 1 if i else 2))
        inputs, unit = width, unit + 1
      self.ends.append(unit)

  def forward(self, x):
    x = self.prelu(self.bn(self.conv(x)))
    outputs = []
    for i in range(self.ends[-1]):
      x = getattr(self, f'unit{i}')(x)
      if i + 1 in self.ends:
        outputs.append(x)
    return outputs


def _norm(width):
  return BatchNorm(width), PReLU(width)


class Map2Style(nn.Module):
  """`encoders.Map2Style`."""

  def __init__(self, side, inputs, features):
    super().__init__()
    self.count = int(math.log2(side))
    for i in range(self.count):
      self.add_module(f'conv{i}', Conv(features if i else inputs, features, 3, 2, bias=True))
    self.fc = EqualLinear(features, features)

  def forward(self, x):
    for i in range(self.count):
      x = F.leaky_relu(getattr(self, f'conv{i}')(x), 0.01)
    return self.fc(x[:, :, 0, 0])


class GradualStyleEncoder(nn.Module):
  """`encoders.GradualStyleEncoder` in training."""

  def __init__(
    self, num_styles, size, depths=irse.DEPTHS, widths=irse.WIDTHS, style_dim=512, channels=3
  ):
    super().__init__()
    self.body = Body(channels, depths, widths)
    self.lateral0 = Conv(widths[2], widths[3], 1, bias=True)
    self.lateral1 = Conv(widths[1], widths[3], 1, bias=True)
    counts = {'coarse': encoders.COARSE, 'middle': encoders.MIDDLE}
    counts['fine'] = num_styles - sum(counts.values())
    for i, (name, count) in enumerate(counts.items()):
      heads = [Map2Style(size // 16 * 2**i, widths[3], style_dim) for _ in range(count)]
      self.add_module(name, nn.ModuleList(heads))

  def forward(self, images):
    _, c1, c2, c3 = self.body(images)
    p2 = _larger(c3, c2) + self.lateral0(c2)
    p1 = _larger(p2, c1) + self.lateral1(c1)
    heads = ((self.coarse, c3), (self.middle, p2), (self.fine, p1))
    return torch.stack([head(level) for level_heads, level in heads for head in level_heads], dim=1)


def _larger(x, like):
  return F.interpolate(x, like.shape[-2:], mode='bilinear', align_corners=True)


class AlexNet(nn.Module):
  """`models.AlexNet` with all taps; frozen."""

  def __init__(self):
    super().__init__()
    self.input = nn.Module()
    self.input.mean, self.input.scale = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    sizes = ((3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3))
    for i, (inputs, features, size) in enumerate(sizes, start=1):
      self.add_module(f'conv{i}', Conv(inputs, features, size, bias=True))
    self.conv1.stride, self.conv1.padding = 4, 2
    self.requires_grad_(False)

  def forward(self, pictures):
    mean, scale = self.input.mean[:, None, None], self.input.scale[:, None, None]
    x = ((pictures + 1.0) * 127.5 - mean) * scale
    taps = []
    for i in range(1, 6):
      x = F.relu(getattr(self, f'conv{i}')(F.max_pool2d(x, 3, 2) if i in (2, 3) else x))
      taps.append(x)
    return taps
