"""StyleGAN2's networks in PyTorch, NCHW, with the variable names of Flax.

They are optimized for speed: styles scale activations, so that there are no kernels per example,
and filters are depthwise convolutions.
"""

from collections.abc import Mapping, Sequence
import math

import flax.traverse_util
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

from step_jax.bench.ports import running
from step_jax.methods.psp import fir, generator
from step_jax.methods.psp.layers import EPSILON


def load(module: nn.Module, *trees: Mapping) -> nn.Module:
  """Copies variables of a Flax network to the same network of this module.

  Args:
    module: target network.
    *trees: collections of the Flax network, without constant noise.

  Raises:
    ValueError: see `running.load`.
  """
  arrays = {}
  for tree in trees:
    for path, array in flax.traverse_util.flatten_dict(tree).items():
      if path[-1] == 'const':
        array = np.asarray(array)[0].transpose(2, 0, 1)
      if 'heads' in path:
        level, _, *rest = path
        arrays |= {(level, str(i), *rest): one for i, one in enumerate(array)}
      else:
        arrays[path] = array
  return running.load(module, flax.traverse_util.unflatten_dict(arrays))


def fused_leaky_relu(x: torch.Tensor) -> torch.Tensor:
  """`layers.fused_leaky_relu`."""
  return F.leaky_relu(x, 0.2) * math.sqrt(2)


def blur(x: torch.Tensor, pad: int, gain: float = 1.0, stride: int = 1) -> torch.Tensor:
  """`fir.blur` as a depthwise convolution, or as sums of slices that the compiler fuses."""
  if torch.compiler.is_compiling():
    x = F.pad(x, (pad,) * 4)
    for axis in (2, 3):
      stop = x.shape[axis] - 3
      parts = [x.movedim(axis, 0)[i : stop + i : stride].movedim(0, axis) for i in range(4)]
      outer, inner = parts[0] + parts[3], parts[1] + parts[2]
      x = float(fir.TAPS[0] * gain**0.5) * outer + float(fir.TAPS[1] * gain**0.5) * inner
    return x
  taps = torch.as_tensor(fir.TAPS, dtype=x.dtype, device=x.device)
  kernel = (gain * torch.outer(taps, taps)).expand(x.shape[1], 1, -1, -1)
  return F.conv2d(x, kernel, None, stride, pad, groups=x.shape[1])


def upsample(x: torch.Tensor) -> torch.Tensor:
  """`fir.upsample` as bilinear interpolation with zero padding at the border."""
  height, width = x.shape[-2:]
  x = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode='bilinear', align_corners=False)
  return x[..., 2 : 2 + 2 * height, 2 : 2 + 2 * width]


class EqualLinear(nn.Module):
  """`layers.EqualLinear`."""

  def __init__(self, inputs, features, lr_multiplier=1.0, activate=False):
    super().__init__()
    self.kernel = nn.Parameter(torch.zeros(inputs, features))
    self.bias = nn.Parameter(torch.zeros(features))
    self.scale, self.multiplier = lr_multiplier / math.sqrt(inputs), lr_multiplier
    self.activate = activate

  def forward(self, x):
    y = torch.addmm(self.bias, x, self.kernel, beta=self.multiplier, alpha=self.scale)
    return fused_leaky_relu(y) if self.activate else y


class EqualConv(nn.Module):
  """`layers.EqualConv`; `down` blurs and uses stride 2."""

  def __init__(self, inputs, features, size, down=False, bias=True):
    super().__init__()
    self.kernel = nn.Parameter(torch.zeros(features, inputs, size, size))
    if bias:
      self.bias = nn.Parameter(torch.zeros(features))
    self.scale = 1 / (size * math.sqrt(inputs))
    self.size, self.down, self.activate = size, down, bias

  def forward(self, x):
    kernel = self.kernel * self.scale
    if not self.down:
      y = F.conv2d(x, kernel, self.bias, padding=self.size // 2)
    elif self.size == 1:
      y = F.conv2d(blur(x, pad=1, stride=2), kernel)
    else:
      y = F.conv2d(blur(x, pad=2), kernel, self.bias, stride=2)
    return fused_leaky_relu(y) if self.activate else y


class ModulatedConv(nn.Module):
  """`layers.ModulatedConv`; `up` upsamples."""

  def __init__(self, inputs, features, size, style_dim, up=False, demodulate=True):
    super().__init__()
    self.affine = EqualLinear(style_dim, inputs)
    self.kernel = nn.Parameter(torch.zeros(features, inputs, size, size))
    self.scale = 1 / (size * math.sqrt(inputs))
    self.up, self.demodulate = up, demodulate

  def forward(self, x, w):
    style, kernel = self.affine(w), self.kernel * self.scale
    x = x * style[:, :, None, None]
    if self.up:
      y = blur(F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2), pad=1, gain=4.0)
    else:
      y = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    if self.demodulate:
      power = style.square() @ kernel.square().sum(dim=(2, 3)).T
      y = y * torch.rsqrt(power + EPSILON)[:, :, None, None]
    return y


class StyledConv(nn.Module):
  """`generator.StyledConv`."""

  def __init__(self, inputs, features, style_dim, up=False):
    super().__init__()
    self.conv = ModulatedConv(inputs, features, 3, style_dim, up)
    self.noise_strength = nn.Parameter(torch.zeros(()))
    self.bias = nn.Parameter(torch.zeros(features))

  def forward(self, x, w, noise):
    y = self.conv(x, w) + self.noise_strength * noise + self.bias[:, None, None]
    return fused_leaky_relu(y)


class ToRGB(nn.Module):
  """`generator.ToRGB`."""

  def __init__(self, inputs, style_dim):
    super().__init__()
    self.conv = ModulatedConv(inputs, 3, 1, style_dim, demodulate=False)
    self.bias = nn.Parameter(torch.zeros(3))

  def forward(self, x, w, skip):
    rgb = self.conv(x, w) + self.bias[:, None, None]
    return rgb if skip is None else rgb + upsample(skip)


class Block(nn.Module):
  """`generator.Block`."""

  def __init__(self, inputs, features, style_dim):
    super().__init__()
    if inputs:
      self.conv_up = StyledConv(inputs, features, style_dim, up=True)
    else:
      self.const = nn.Parameter(torch.zeros(features, 4, 4))
    self.conv = StyledConv(features, features, style_dim)
    self.torgb = ToRGB(features, style_dim)

  def forward(self, x, skip, styles, noise):
    if x is None:
      x = self.const.expand(len(styles[0]), -1, -1, -1)
    else:
      x = self.conv_up(x, styles[0], noise[0])
    x = self.conv(x, styles[-2], noise[-1])
    return x, self.torgb(x, styles[-1], skip)


class Generator(nn.Module):
  """`generator.Generator`, with explicit noise `[B, 1, H, W]`."""

  def __init__(self, channels: Sequence[int], style_dim: int, mapping_depth: int):
    super().__init__()
    self.mapping = nn.ModuleDict(
      {f'fc{i}': EqualLinear(style_dim, style_dim, 0.01, True) for i in range(mapping_depth)}
    )
    inputs = (0, *channels[:-1])
    self.synthesis = nn.ModuleDict(
      {
        f'b{4 * 2**i}': Block(*pair, style_dim)
        for i, pair in enumerate(zip(inputs, channels, strict=True))
      }
    )
    self.num_styles, self.style_dim = 2 * len(channels), style_dim
    self.noise_sides = generator.noise_sides(4 * 2 ** (len(channels) - 1))

  def map(self, z):
    """Z to W, `[B, D]`."""
    x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + EPSILON)
    for layer in self.mapping.values():
      x = layer(x)
    return x

  def synthesize(self, w_plus, noise):
    """W+ to images, `[B, n, D] -> [B, 3, H, W]`."""
    styles, x, image = w_plus.unbind(dim=1), None, None
    for i, block in enumerate(self.synthesis.values()):
      first = max(2 * i - 1, 0)
      x, image = block(x, image, styles[first : 2 * i + 2], noise[first : 2 * i + 1])
    return image

  def random_noise(self, batch, device):
    """Noise from N(0, 1) for each convolution."""
    return [torch.randn(batch, 1, side, side, device=device) for side in self.noise_sides]


class ResBlock(nn.Module):
  """`discriminator.ResBlock`."""

  def __init__(self, inputs, features):
    super().__init__()
    self.conv0 = EqualConv(inputs, inputs, 3)
    self.conv1 = EqualConv(inputs, features, 3, down=True)
    self.skip = EqualConv(inputs, features, 1, down=True, bias=False)

  def forward(self, x):
    return (self.conv1(self.conv0(x)) + self.skip(x)) / math.sqrt(2)


class Discriminator(nn.Module):
  """`discriminator.Discriminator`."""

  def __init__(self, channels: Sequence[int]):
    super().__init__()
    self.from_rgb = EqualConv(3, channels[-1], 1)
    self.blocks = [f'b{4 * 2**i}' for i in range(len(channels) - 1, 0, -1)]
    for i, name in zip(range(len(channels) - 1, 0, -1), self.blocks, strict=True):
      self.add_module(name, ResBlock(channels[i], channels[i - 1]))
    self.conv = EqualConv(channels[0] + 1, channels[0], 3)
    self.fc = EqualLinear(16 * channels[0], channels[0], activate=True)
    self.out = EqualLinear(channels[0], 1)

  def forward(self, image):
    x = self.from_rgb(image)
    for name in self.blocks:
      x = getattr(self, name)(x)
    batch, group = len(x), min(len(x), 4)
    groups = x.reshape(group, -1, *x.shape[1:])
    deviation = (groups.var(dim=0, unbiased=False) + EPSILON).sqrt().mean(dim=(1, 2, 3))
    channel = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    x = self.conv(torch.cat([x, channel], dim=1))
    return self.out(self.fc(x.permute(0, 2, 3, 1).reshape(batch, -1)))
