"""Translation of images of any size in tiles, with the norm statistics of the whole image.

An instance norm needs the mean and variance of whole maps, which depend on those of the norms
before it. So the generator goes over all tiles once per norm to compute the statistics of that
norm, and once more to draw the image. The output of the last complete residual block is kept for
the whole image, at 1/8 of its size, and the next pass starts there.

Tiles overlap by what a pass sees around them, so that the result is that of the whole image within
rounding.
"""

from collections.abc import Mapping, Sequence
import functools
import itertools
import logging
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from step_jax import images
from step_jax.infer.spans import Span, spans
from step_jax.methods.step import models as nets
from step_jax.methods.step.models.generator import SIZE_MULTIPLE
from step_jax.models import layers

log = logging.getLogger(__name__)

# Pixels that a pass sees around a tile, at most. The last one has a residual block at 1/8 of the
# size (2 x 8), then three doublings with two 3x3 convolutions each: 8 + 4, 4 + 2 and 2 + 1. That
# makes 37; those before end with a convolution after the block (3 x 8), or in the first layers.
_HALO = 40


class _Moments(NamedTuple):
  """Number of values, mean `[C]` and sum of squared deviations from it `[C]`."""

  count: jax.Array
  mean: jax.Array
  squares: jax.Array


def translate(
  generator: nets.Generator, params: Mapping, source: np.ndarray, z: np.ndarray, tile: int
) -> np.ndarray:
  """Translates an image in tiles.

  There are 20 passes for the statistics of 20 norms, and one for the result. In addition to one
  tile, memory holds source and result, 6 bytes per pixel, and two maps at 1/8 of the size, which
  need `width` bytes per pixel in float32 and half of that in bfloat16.

  Args:
    generator: the module.
    params: network -> parameters.
    source: uint8 `[H, W, 3]`.
    z: style code `[Z]`.
    tile: side of a tile in pixels, rounded up to a multiple of 8.

  Returns:
    uint8 `[H, W, 3]`.
  """
  height, width = source.shape[:2]
  margins = ((0, -height % SIZE_MULTIPLE), (0, -width % SIZE_MULTIPLE), (0, 0))
  if any(map(any, margins)):
    source = np.pad(source, margins, mode='edge')
  tile += -tile % SIZE_MULTIPLE
  tiles = list(itertools.product(*(spans(side, tile, _HALO) for side in source.shape[:2])))
  # Rematerialised blocks hide their activations from interceptors.
  visit = functools.partial(_visit, generator.clone(remat=False))
  statistics: list[tuple[np.ndarray, np.ndarray]] = []
  kept, blocks = None, 0
  while True:
    log.info('pass %d over %d tiles', len(statistics) + 1, len(tiles))
    parts, canvas = [], None
    for rows, columns in tiles:
      window = source[None, rows.window, columns.window]
      near = None if kept is None else kept[:, _at(8, rows.window), _at(8, columns.window)]
      cores = [(span.core.start, span.core.stop) for span in (rows, columns)]
      moments, output = visit(blocks, params['generator'], window, z[None], statistics, near, cores)
      parts.append(moments)
      if output is not None:
        canvas = _paste(canvas, np.asarray(output), source, rows, columns)
    if moments is None:
      return canvas[0, :height, :width]
    statistics.append(_combine(parts))
    if canvas is not None:
      kept, blocks = canvas, blocks + 1


def _at(scale: int, span: slice) -> slice:
  """Converts a span of pixels to a map that is `scale` times smaller."""
  return slice(span.start // scale, span.stop // scale)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _visit(
  generator: nets.Generator,
  blocks: int,
  params: Mapping,
  window: jax.Array,
  z: jax.Array,
  statistics: Sequence[tuple[jax.Array, jax.Array]],
  kept: jax.Array | None,
  cores: Sequence[tuple[jax.Array, jax.Array]],
) -> tuple[_Moments | None, jax.Array | None]:
  """Runs the generator on a window up to the first norm whose statistics are not known.

  It traces the whole generator; XLA removes unused computations.

  Args:
    generator: the module.
    blocks: number of residual blocks to skip, because the output of the last one is known.
    params: parameters of the generator.
    window: uint8 `[1, h, w, 3]`.
    z: style code `[1, Z]`.
    statistics: mean and variance `[1, 1, 1, C]` of the first norms.
    kept: the output of these blocks in the window, `[1, h / 8, w / 8, C]`.
    cores: first and last (exclusive) row, and column, of the tile in the window.

  Returns:
    The moments of that norm over the tile; and the output of the last block before it in the
    window, or None if it is `kept`. If the statistics of all norms are known, None and the result,
    uint8 `[1, h, w, 3]`.
  """
  moments, outputs = [], []
  norms = itertools.count()

  def intercept(call, args, kwargs, context):
    module, method = context.module, context.method_name
    if isinstance(module, layers.InstanceNorm) and method == 'moments':
      index = next(norms)
      if index < len(statistics):
        return statistics[index]
      moments.append(_moments(args[0], window.shape[1], *cores))
    output = call(*args, **kwargs)
    if isinstance(module, layers.ResBlock) and method == '__call__' and not moments:
      outputs.append(output)
      return kept if len(outputs) == blocks else output
    return output

  with nn.intercept_methods(intercept):
    image = generator.apply({'params': params}, images.to_float(window), z)
  if not moments:
    return None, images.to_uint8(image)
  return moments[0], outputs[-1] if len(outputs) > blocks else None


def _moments(x: jax.Array, height: int, rows: tuple, columns: tuple) -> _Moments:
  """Moments of a map `[1, h, w, C]` over a part of the window that is `height` px high."""
  scale = height // x.shape[1]
  inside = [
    (jnp.arange(side) * scale >= first) & (jnp.arange(side) * scale < last)
    for side, (first, last) in zip(x.shape[1:3], (rows, columns), strict=True)
  ]
  weights = (inside[0][:, None] & inside[1])[None, :, :, None].astype(jnp.float32)
  count = weights.sum()
  mean = jnp.sum(weights * x, axis=(0, 1, 2)) / count
  return _Moments(count, mean, jnp.sum(weights * jnp.square(x - mean), axis=(0, 1, 2)))


def _combine(parts: Sequence[_Moments]) -> tuple[np.ndarray, np.ndarray]:
  """Mean and biased variance of all values, float32 `[1, 1, 1, C]`.

  Combines the variances within parts and between the means of parts (Chan et al. 1979).
  """
  count, mean, squares = (
    np.stack(values).astype(np.float64) for values in zip(*parts, strict=True)
  )
  share = (count / count.sum())[:, None]
  overall = np.sum(share * mean, axis=0)
  variance = squares.sum(axis=0) / count.sum() + np.sum(share * np.square(mean - overall), axis=0)
  return tuple(array.astype(np.float32)[None, None, None] for array in (overall, variance))


def _paste(
  canvas: np.ndarray | None, part: np.ndarray, source: np.ndarray, rows: Span, columns: Span
) -> np.ndarray:
  """Copies a tile to the map of the whole image, `[1, H / s, W / s, C]`, created if it is None.

  `part` is the map of the window of the tile.
  """
  scale = (rows.window.stop - rows.window.start) // part.shape[1]
  if canvas is None:
    height, width = (side // scale for side in source.shape[:2])
    canvas = np.empty((1, height, width, part.shape[-1]), part.dtype)
  core = part[:, _at(scale, rows.core), _at(scale, columns.core)]
  canvas[:, _at(scale, rows.tile), _at(scale, columns.tile)] = core
  return canvas
