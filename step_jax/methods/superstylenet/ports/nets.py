"""SuperStyleNet's networks in PyTorch, NCHW, initialised from the variables of the Flax networks.

They are optimized for speed: style convolutions are factorised as in ours, the one-hot
neighbourhoods of a label map are computed once per size, and SPADE and style are blended in their
small kernels instead of in maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

from step_jax.methods.superstylenet import generator as generator_lib
from step_jax.methods.superstylenet import layers
from step_jax.methods.superstylenet.discriminator import NUM_SCALES
from step_jax.models import features as features_lib

_EPSILON = 1e-5
Tree = Mapping[str, Any]
# Size -> one-hot labels `[B, L, h, w]`, and their neighbourhoods, see `Labels`.
Maps = Mapping[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]


def tensor(array: np.ndarray) -> torch.Tensor:
  """Copies an array; kernels of convolutions become OIHW."""
  copy = torch.from_numpy(np.array(array))
  return copy.permute(3, 2, 0, 1).contiguous() if copy.ndim == 4 else copy


def parameter(array: np.ndarray) -> nn.Parameter:
  """A parameter of a Flax network."""
  return nn.Parameter(tensor(array))


def leaky_relu(x: torch.Tensor) -> torch.Tensor:
  """`layers.leaky_relu`."""
  return F.leaky_relu(x, layers.LEAKY_SLOPE)


class Conv(nn.Module):
  """`layers.Conv`, with spectral norm if its vectors are given."""

  def __init__(self, params: Tree, vectors: Tree | None = None, stride: int = 1):
    super().__init__()
    self.kernel = parameter(params['kernel'])
    self.bias = parameter(params['bias']) if 'bias' in params else None
    self.stride, self.padding = stride, self.kernel.shape[-1] // 2
    self.spectral = vectors is not None
    if self.spectral:
      self.register_buffer('u', tensor(vectors['u']))
      self.register_buffer('v', tensor(vectors['v']))

  def forward(self, x, train=False):
    kernel = self.normalised(train) if self.spectral else self.kernel
    return F.conv2d(x, kernel, self.bias, self.stride, self.padding)

  def normalised(self, train: bool) -> torch.Tensor:
    """The kernel divided by its largest singular value; `v` is in the order of Flax."""
    matrix = self.kernel.permute(0, 2, 3, 1).flatten(1)
    u, v = self.u, self.v
    if train:
      with torch.no_grad():
        v = F.normalize(matrix.T @ u, dim=0, eps=1e-12)
        u = F.normalize(matrix @ v, dim=0, eps=1e-12)
        self.u.copy_(u)
        self.v.copy_(v)
    return self.kernel / torch.dot(u, matrix @ v)


class Labels:
  """Label maps at all sizes of a generator.

  Args:
    labels: int64 `[B, H, W]`.
    num_labels: number of labels, L.
    sizes: heights and widths.
    channels_last: memory format: neighbourhoods are `[B, h w, 9 L]`, otherwise `[B, 9 L, h w]`.
  """

  def __init__(self, labels, num_labels: int, sizes, channels_last: bool):
    self.maps = {}
    for height, width in sorted(set(sizes)):
      rows = torch.arange(height) * labels.shape[1] // height
      columns = torch.arange(width) * labels.shape[2] // width
      small = labels[:, rows[:, None].to(labels.device), columns.to(labels.device)]
      one_hot = F.one_hot(small, num_labels).float().permute(0, 3, 1, 2)
      # Taps, then labels: the layout of the kernel.
      wide = F.pad(one_hot, (1, 1, 1, 1))
      taps = [wide[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
      near = torch.stack(taps, dim=1).flatten(3).flatten(1, 2)
      if channels_last:
        near = near.transpose(1, 2)
        one_hot = one_hot.contiguous(memory_format=torch.channels_last)
      else:
        one_hot = one_hot.contiguous()
      self.maps[height, width] = one_hot, near.contiguous()


class ACE(nn.Module):
  """`ace.ACE`."""

  def __init__(self, params: Tree, stats: Tree, channels_last: bool):
    super().__init__()
    self.channels_last = channels_last
    self.noise_scale = parameter(params['noise_scale'])
    self.spade_shared, self.spade = Conv(params['spade_shared']), Conv(params['spade'])
    self.register_buffer('mean', tensor(stats['norm']['mean']))
    self.register_buffer('var', tensor(stats['norm']['var']))
    self.style = 'label_kernel' in params
    if self.style:
      for name in ('label_kernel', 'label_bias', 'gsas_weight', 'style_bias'):
        setattr(self, name, parameter(params[name]))
      self.blend_scale, self.blend_shift = map(
        parameter, (params['blend_scale'], params['blend_shift'])
      )
      # `[9 taps, D, 2 C]`, the layout for the products.
      kernel = np.asarray(params['style_kernel'])
      self.style_kernel = nn.Parameter(tensor(kernel.reshape(9, *kernel.shape[2:])))

  def styles(self, codes):
    """`ace.ACE.styles`."""
    attention = torch.softmax(self.gsas_weight * codes, dim=-1)
    mixed = codes + (attention * codes).sum(dim=-1, keepdim=True) / codes.shape[-1]
    by_label = torch.bmm(mixed.transpose(0, 1), self.label_kernel).transpose(0, 1)
    return F.relu(by_label + self.label_bias)

  def scale_and_shift(self, maps: Maps, codes, size) -> torch.Tensor:
    """Maps `[B, 2 C, h, w]` of both branches."""
    one_hot, near = maps[size]
    hidden = F.relu(self.spade_shared(one_hot))
    if not self.style:
      return self.spade(hidden)
    share = torch.sigmoid(torch.stack([self.blend_scale, self.blend_shift]))
    share = share.repeat_interleave(len(self.noise_scale))
    kernel = self.spade.kernel * (1 - share)[:, None, None, None]
    bias = self.spade.bias * (1 - share) + self.style_bias * share
    of_spade = F.conv2d(hidden, kernel, bias, padding=1)
    styles = self.styles(codes)
    taps = torch.einsum('bld,tdo->btlo', styles, self.style_kernel).flatten(1, 2) * share
    taps = taps.to(of_spade.dtype)
    near = near.to(of_spade.dtype)
    if self.channels_last:
      flat = of_spade.permute(0, 2, 3, 1).flatten(1, 2)
      return torch.baddbmm(flat, near, taps).unflatten(1, size).permute(0, 3, 1, 2)
    return torch.baddbmm(of_spade.flatten(2), taps.transpose(1, 2), near).unflatten(2, size)

  def forward(self, x, maps: Maps, codes, noise=None, train=False):
    if noise is not None:
      x = x + (noise * self.noise_scale[:, None, None]).to(x.dtype)
    size = tuple(x.shape[2:])
    x = F.batch_norm(x, self.mean, self.var, training=train, momentum=0.1, eps=_EPSILON)
    scale, shift = self.scale_and_shift(maps, codes, size).chunk(2, dim=1)
    return x * (1 + scale) + shift


class ResBlock(nn.Module):
  """`generator.ResBlock`."""

  def __init__(self, params: Tree, stats: Mapping[str, Tree], channels_last: bool):
    super().__init__()
    self.shortcut = 'conv_s' in params
    norms, spectral = stats['batch_stats'], stats['spectral']
    for name in ('0', '1', 's') if self.shortcut else ('0', '1'):
      ace = ACE(params[f'ace_{name}'], norms[f'ace_{name}'], channels_last)
      self.add_module(f'ace_{name}', ace)
      vectors = spectral[f'conv_{name}']['norm']
      self.add_module(f'conv_{name}', Conv(params[f'conv_{name}'], vectors))

  def forward(self, x, maps: Maps, codes, noise: Mapping, train=False):
    norm = lambda name, x: getattr(self, name)(x, maps, codes, noise.get(name), train)
    y = self.conv_0(leaky_relu(norm('ace_0', x)), train)
    y = self.conv_1(leaky_relu(norm('ace_1', y)), train)
    return y + (self.conv_s(norm('ace_s', x), train) if self.shortcut else x)


class Generator(nn.Module):
  """`generator.Generator`."""

  def __init__(self, params: Tree, stats: Mapping[str, Tree], channels_last: bool = False):
    super().__init__()
    self.fc, self.conv_img = Conv(params['fc']), Conv(params['conv_img'])
    for name, *_ in generator_lib.BLOCKS:
      own = {collection: values[name] for collection, values in stats.items()}
      self.add_module(name, ResBlock(params[name], own, channels_last))

  def forward(self, maps: Maps, sizes: Mapping, codes, noise: Mapping, train=False):
    """Generates images `[B, 3, H, W]`.

    Args:
      maps: maps of `Labels`.
      sizes: block -> height and width.
      codes: `[B, L, C]`, scaled to about [-1, 1].
      noise: block -> norm -> `[B, 1, h, w]`; empty for none.
      train: whether to use and update batch statistics.
    """
    x = self.fc(maps[sizes['head_0']][0])
    for name, size in sizes.items():
      if tuple(x.shape[2:]) != size:
        x = F.interpolate(x, scale_factor=2.0, mode='nearest')[:, :, : size[0], : size[1]]
      x = getattr(self, name)(x, maps, codes, noise.get(name, {}), train)
    return torch.tanh(self.conv_img(leaky_relu(x)).float())


class Discriminator(nn.Module):
  """`discriminator.Discriminator`, with instance norms or group norms of one channel per group."""

  def __init__(self, params: Tree, stats: Mapping[str, Tree], grouped: bool = False):
    super().__init__()
    self.grouped = grouped
    for i in range(NUM_SCALES):
      scale = f'scale_{i}'
      for j in range(4):
        name = f'conv_{j}'
        vectors = stats['spectral'][scale][name]['norm'] if j in (1, 2) else None
        conv = Conv(params[scale][name], vectors, stride=1 if j == 3 else 2)
        self.add_module(f'{scale}_{name}', conv)

  def norm(self, x):
    """`discriminator.instance_norm`."""
    if self.grouped:
      return F.group_norm(x, x.shape[1], eps=_EPSILON)
    return F.instance_norm(x, eps=_EPSILON)

  def forward(self, one_hot, image, train=False):
    """Labels `[B, L, H, W]` and images `[B, 3, H, W]` to scale -> layer -> `[B, C, h, w]`."""
    x = torch.cat([one_hot, image], dim=1)
    scales = []
    for i in range(NUM_SCALES):
      conv = lambda j, x, i=i: getattr(self, f'scale_{i}_conv_{j}')(x, train)
      maps = [leaky_relu(conv(0, x))]
      for j in (1, 2):
        maps.append(leaky_relu(self.norm(conv(j, maps[-1]))))
      scales.append([*maps, conv(3, maps[-1])])
      if i < NUM_SCALES - 1:
        x = F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
    return scales


class FeatureNet(nn.Module):
  """Frozen VGG19 or SqueezeNet 1.1 of `models.features`, up to the last tap."""

  def __init__(self, name: str, taps: Sequence[str], params: Tree):
    super().__init__()
    self.taps, self.vgg = tuple(taps), name.startswith('vgg')
    self.register_buffer('mean', tensor(params['input']['mean']))
    self.register_buffer('scale', tensor(params['input']['scale']))
    names = [layer for layer, _ in features_lib.FEATURE_NETS[name].PLAN]
    self.names = names[: max(names.index(tap) for tap in taps) + 1]
    self.convs = nn.ModuleDict()
    for layer in self.names:
      for part, own in params.get(layer, {}).items() if layer.startswith('fire') else ():
        self.convs[f'{layer}_{part}'] = Conv(own)
      if layer.startswith('conv'):
        self.convs[layer] = Conv(params[layer])
        if not self.vgg:
          self.convs[layer].stride, self.convs[layer].padding = 2, 0
    self.requires_grad_(False)

  def forward(self, images):
    mean, scale = self.mean[:, None, None], self.scale[:, None, None]
    x, activations = ((images + 1.0) * 127.5 - mean) * scale, []
    for name in self.names:
      if name.startswith('pool'):
        x = F.max_pool2d(x, 2 if self.vgg else 3, 2, ceil_mode=not self.vgg)
      elif name.startswith('conv'):
        x = F.relu(self.convs[name](x))
      else:
        x = F.relu(self.convs[f'{name}_squeeze'](x))
        expansions = [self.convs[f'{name}_expand{size}'](x) for size in (1, 3)]
        x = F.relu(torch.cat(expansions, dim=1))
      if name in self.taps:
        activations.append(x)
    return activations
