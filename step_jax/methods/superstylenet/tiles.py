"""Generates images of any size in tiles.

Norms use the statistics of training, so tiles depend on each other only through convolutions. They
overlap by what the generator sees around them.
"""

from collections.abc import Mapping
import functools
import itertools
import logging
from typing import Any

import jax
import numpy as np

from step_jax.infer.spans import spans
from step_jax.methods.superstylenet.drawing import to_uint8
from step_jax.methods.superstylenet.generator import Generator, draw_noise
from step_jax.methods.superstylenet.training import network_codes

log = logging.getLogger(__name__)


def draw(
  generator: Generator,
  variables: Mapping[str, Any],
  labels: np.ndarray,
  code: np.ndarray,
  tile: int,
  noise_seed: int | None = None,
) -> np.ndarray:
  """Generates the image of a label map and a code in tiles.

  Memory holds one tile with its surroundings, the result, the label map in the size of each block,
  and the noise of the whole image, if there is any.

  Args:
    generator: the module.
    variables: its parameters and statistics.
    labels: integers `[H, W]`.
    code: one code per label, `[L, C]`.
    tile: side of a tile in pixels, rounded up to pixels of the smallest map.
    noise_seed: seed of the noise; None: no noise.

  Returns:
    uint8 `[H, W, 3]`.
  """
  unit = 2**generator.num_upsamplings
  axes = [spans(-(-side // unit), -(-tile // unit), halo(generator)) for side in labels.shape]
  tiles = list(itertools.product(*axes))
  maps = {'pyramid': jax.device_get(generator.pyramid(labels[None].astype(np.int32)))}
  if noise_seed is not None:
    # Noise belongs to the pixels of the whole image.
    noise = draw_noise(jax.random.key(noise_seed), generator, 1, *labels.shape)
    maps['noise'] = jax.device_get(noise)
  log.info('%d tiles', len(tiles))
  image = np.empty((*labels.shape, 3), np.uint8)
  for rows, columns in tiles:
    windows = {
      name: _at(unit >> count, rows.window, columns.window)
      for name, count in generator.halvings.items()
    }
    parts = {kind: _cut(by_block, windows) for kind, by_block in maps.items()}
    drawn = np.asarray(_draw(generator, variables, code, **parts))
    image[_at(unit, rows.tile, columns.tile)] = drawn[_at(unit, rows.core, columns.core)]
  return image


def halo(generator: Generator) -> int:
  """What the generator sees around a tile, in pixels of the smallest map.

  Each block sees features through two 3x3 convolutions in a row. Its scales and shifts see two more
  pixels of the label map; only in the first block, this exceeds what features see.
  """
  unit = 2**generator.num_upsamplings
  pixels = 1 + 2 * unit + sum(2 * 2**count for count in generator.halvings.values())
  # One more, because a pixel of a smaller map is shared by neighbours.
  return -(-pixels // unit) + 1


def _at(scale: int, *parts: slice) -> tuple[slice, ...]:
  """Spans in pixels of the smallest map, as spans of a map that is `scale` times larger."""
  return tuple(slice(part.start * scale, part.stop * scale) for part in parts)


def _cut(by_block: Mapping[str, Any], windows: Mapping[str, tuple[slice, ...]]) -> dict[str, Any]:
  """Windows of the maps of each block, `[1, h, w, ...]`."""
  return {
    name: jax.tree.map(lambda x, window=window: x[:, *window], by_block[name])
    for name, window in windows.items()
  }


@functools.partial(jax.jit, static_argnums=0)
def _draw(generator, variables, code, pyramid, noise=None):
  codes = network_codes(code)[None]
  return to_uint8(generator.apply(variables, pyramid, codes, noise, method='draw')[0])
