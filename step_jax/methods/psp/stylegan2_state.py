"""Converts PyTorch state dicts of StyleGAN2, with rosinality's names, to modules and variables."""

from collections.abc import Iterator
import logging

import jax
import jax.numpy as jnp
import numpy as np

from step_jax.errors import WeightsError
from step_jax.methods.psp import torch_state
from step_jax.methods.psp.discriminator import Discriminator
from step_jax.methods.psp.generator import Generator, noise_sides
from step_jax.methods.psp.torch_state import Entry, State, Variables

log = logging.getLogger(__name__)

# Number of levels from 4 px to 4096 px; more levels would need too much noise.
_MOST_LEVELS = 10


@torch_state.refusing
def generator_from_torch(
  state: State, where: str = 'the state dict'
) -> tuple[Generator, Variables]:
  """Reads a generator; shapes determine its size, channels, style dimension and depth.

  Old files have no constant noise. It is then sampled, and a warning is logged.

  Args:
    state: PyTorch name -> array, such as `g_ema` of a file.
    where: the file, for messages.

  Returns:
    The module and `{'params', 'noise'}`.

  Raises:
    WeightsError: it is not a generator's state dict, or is damaged.
  """
  levels = torch_state.count(state, r'to_rgbs\.\d+\.bias')
  if not 1 <= levels <= _MOST_LEVELS:
    raise WeightsError(f'{where} does not have a StyleGAN2 generator')
  of = lambda key: torch_state.shape_of(state, key, where)
  first = ['conv1', *(f'convs.{2 * i}' for i in range(levels))]
  shapes = [of(f'{key}.conv.weight') for key in first]
  widths = of('style.1.weight')
  if any(len(shape) != 5 for shape in shapes) or len(widths) != 2:
    raise WeightsError(f'{where} does not have a StyleGAN2 generator')
  module = Generator(
    channels=tuple(shape[1] for shape in shapes),
    style_dim=widths[0],
    mapping_depth=torch_state.count(state, r'style\.\d+\.weight'),
  )
  if not any(key.startswith('noises.') for key in state):
    log.warning('%s has no constant noise: it is sampled with seed 0', where)
    random = np.random.RandomState(0)
    drawn = [random.standard_normal((1, 1, side, side)) for side in noise_sides(module.size)]
    state = {**state, **{f'noises.noise_{i}': noise for i, noise in enumerate(drawn)}}
  z = jax.ShapeDtypeStruct((1, module.style_dim), jnp.float32)
  return module, torch_state.convert(state, _generator(module), module.init, z, where)


def _generator(module: Generator) -> Iterator[Entry]:
  for i in range(module.mapping_depth):
    yield from torch_state.dense(f'style.{i + 1}', f'mapping/fc{i}')
  yield Entry('input.input', 'params/synthesis/b4/const', torch_state.nhwc)
  yield from styled_conv('conv1', 'synthesis/b4/conv')
  yield from to_rgb('to_rgb1', 'synthesis/b4/torgb')
  yield _noise(0, 'b4/conv')
  for i in range(len(module.channels) - 1):
    block = f'b{8 * 2**i}'
    for j, name in ((2 * i, 'conv_up'), (2 * i + 1, 'conv')):
      yield from styled_conv(f'convs.{j}', f'synthesis/{block}/{name}')
      yield _noise(j + 1, f'{block}/{name}')
    yield from to_rgb(f'to_rgbs.{i}', f'synthesis/{block}/torgb')


def _noise(i: int, path: str) -> Entry:
  return Entry(f'noises.noise_{i}', f'noise/synthesis/{path}/const', torch_state.nhwc)


def styled_conv(key: str, path: str) -> list[Entry]:
  """Arrays of a `StyledConv`, without its constant noise."""
  return [
    *modulated_conv(f'{key}.conv', f'{path}/conv'),
    Entry(f'{key}.noise.weight', f'params/{path}/noise_strength', torch_state.scalar),
    Entry(f'{key}.activate.bias', f'params/{path}/bias'),
  ]


def to_rgb(key: str, path: str) -> list[Entry]:
  """Arrays of a `ToRGB`."""
  bias = Entry(f'{key}.bias', f'params/{path}/bias', torch_state.flat)
  return [*modulated_conv(f'{key}.conv', f'{path}/conv'), bias]


def modulated_conv(key: str, path: str) -> list[Entry]:
  """Arrays of a `ModulatedConv`."""
  return [
    Entry(f'{key}.weight', f'params/{path}/kernel', torch_state.modulated),
    *torch_state.dense(f'{key}.modulation', f'{path}/affine'),
  ]


@torch_state.refusing
def discriminator_from_torch(
  state: State, where: str = 'the state dict'
) -> tuple[Discriminator, Variables]:
  """Reads a discriminator; shapes determine its size and channels.

  Args:
    state: PyTorch name -> array, such as `d` of a file.
    where: the file, for messages.

  Returns:
    The module and `{'params'}`.

  Raises:
    WeightsError: it is not a discriminator's state dict, or is damaged.
  """
  blocks = torch_state.count(state, r'convs\.\d+\.skip\.1\.weight')
  if not 1 <= blocks <= _MOST_LEVELS:
    raise WeightsError(f'{where} does not have a StyleGAN2 discriminator')
  of = lambda key: torch_state.shape_of(state, key, where)
  widths = [of('convs.0.0.weight'), *(of(f'convs.{i + 1}.skip.1.weight') for i in range(blocks))]
  if any(len(shape) != 4 for shape in widths):
    raise WeightsError(f'{where} does not have a StyleGAN2 discriminator')
  module = Discriminator(channels=tuple(shape[0] for shape in reversed(widths)))
  size = 4 * 2**blocks
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return module, torch_state.convert(state, _discriminator(module), module.init, image, where)


def _discriminator(module: Discriminator) -> Iterator[Entry]:
  blocks = len(module.channels) - 1
  yield from equal_conv('convs.0', 'from_rgb', 0)
  for i in range(blocks):
    yield from res_block(f'convs.{i + 1}', f'b{4 * 2 ** (blocks - i)}')
  yield from equal_conv('final_conv', 'conv', 0)
  yield from torch_state.dense('final_linear.0', 'fc', torch_state.flattened(module.channels[0]))
  yield from torch_state.dense('final_linear.1', 'out')


def res_block(key: str, path: str) -> list[Entry]:
  """Arrays of a discriminator's `ResBlock`."""
  return [
    *equal_conv(f'{key}.conv1', f'{path}/conv0', 0),
    *equal_conv(f'{key}.conv2', f'{path}/conv1', 1),
    Entry(f'{key}.skip.1.weight', f'params/{path}/skip/kernel', torch_state.conv),
  ]


def equal_conv(key: str, path: str, place: int) -> list[Entry]:
  """Arrays of an `EqualConv` with bias at position `place` of a `Sequential`."""
  return [
    Entry(f'{key}.{place}.weight', f'params/{path}/kernel', torch_state.conv),
    Entry(f'{key}.{place + 1}.bias', f'params/{path}/bias'),
  ]
