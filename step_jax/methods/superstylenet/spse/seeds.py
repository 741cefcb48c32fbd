"""Seeds of superpixels: greedy farthest-first points of all regions of a batch.

All computations are exact integer arithmetic.
"""

import jax
import jax.numpy as jnp

from step_jax.methods.superstylenet.spse.layout import Layout
from step_jax.methods.superstylenet.spse.splines import SUPERPIXELS

# Larger than any squared distance; the sum of both fits into int32.
_FAR = 2**29


def background_distance(labels: jax.Array, layout: Layout, num_labels: int) -> jax.Array:
  """Squared distance of each pixel to the nearest one of another label in its region's box.

  Pixels outside of the bounding box of a region are ignored. One map has the distances of all
  regions, because each pixel belongs to one region. Distances are computed along columns first,
  then as the minimum of `dx^2 + distance^2` along rows, with increasing `dx`, until no distance can
  become smaller.

  Args:
    labels: int `[B, H, W]`.
    layout: layout of these labels.
    num_labels: number of labels.

  Returns:
    int32 `[B, H, W]`; `2^29` in regions that fill their box.
  """
  batch, height, width = labels.shape
  valid = (labels >= 0) & (labels < num_labels)
  image = jnp.arange(batch, dtype=jnp.int32)[:, None, None]
  region = jnp.where(valid, labels + image * num_labels, 0)
  top, bottom, left, right = (layout.box[:, i][region] for i in range(4))

  row = jnp.arange(height, dtype=jnp.int32)[:, None]
  change = jnp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (1, 0), (0, 0)), constant_values=True)
  # First row of the run of a pixel, and first row after the run.
  start = jax.lax.cummax(jnp.where(change, row, 0), axis=1)
  change = jnp.pad(change[:, 1:], ((0, 0), (0, 1), (0, 0)), constant_values=True)
  stop = jax.lax.cummin(jnp.where(change, row + 1, height), axis=1, reverse=True)
  above = jnp.where(start > top, row - start + 1, height + width)
  below = jnp.where(stop <= bottom, stop - row, height + width)
  nearest = jnp.minimum(above, below)
  vertical = jnp.where(nearest > height, _FAR, nearest**2)

  column = jnp.arange(width, dtype=jnp.int32)
  margins = ((0, 0), (0, 0), (width, width))
  # No label is -2 and boxes are within the image, so padding is never used.
  wide_labels = jnp.pad(labels, margins, constant_values=-2)
  wide_vertical = jnp.pad(vertical, margins)
  box = layout.box
  full = (box[:, 1] - box[:, 0] + 1) * (box[:, 3] - box[:, 2] + 1) == layout.count
  waiting = valid & ~full[region]

  def nearer(carry):
    offset, squared = carry
    for shift, within in ((-offset, column - offset >= left), (offset, column + offset <= right)):
      seen = lambda wide, shift=shift: jax.lax.dynamic_slice_in_dim(wide, width + shift, width, 2)
      distance = jnp.where(seen(wide_labels) == labels, seen(wide_vertical), 0)
      squared = jnp.where(within, jnp.minimum(squared, distance + offset**2), squared)
    return offset + 1, squared

  def unfinished(carry):
    offset, squared = carry
    return (offset < width) & jnp.any(waiting & (squared > offset**2))

  return jax.lax.while_loop(unfinished, nearer, (jnp.int32(1), vertical))[1]


def place_seeds(labels: jax.Array, layout: Layout, num_labels: int) -> jax.Array:
  """Farthest-first seeds of each region: the most interior pixel, then the farthest from all seeds.

  Ties are resolved to the first pixel in raster order. Regions with fewer than 128 pixels repeat
  the corner of their box when all pixels are seeds. Regions without pixels have meaningless seeds.

  Args:
    labels: int `[B, H, W]`.
    layout: layout of these labels.
    num_labels: number of labels.

  Returns:
    int32 `[R, 128, 2]`, row and column.
  """
  squared = background_distance(labels, layout, num_labels).reshape(-1)[layout.pixel]
  box = layout.box
  full = (box[:, 1] - box[:, 0] + 1) * (box[:, 3] - box[:, 2] + 1) == layout.count
  corner = box[:, 0::2]
  # Without background, distances are to a pixel beyond the corner of the box.
  row, column = (
    place - corner[layout.region, i, None] for i, place in enumerate((layout.row, layout.column))
  )
  squared = jnp.where(full[layout.region, None], 1 + row**2 + column**2, squared)
  squared = jnp.where(layout.filled, squared, -1)

  height, width = labels.shape[1:]
  regions = layout.num_regions

  def place(k, carry):
    squared, seeds = carry
    highest = jax.ops.segment_max(jnp.max(squared, axis=1), layout.region, regions)
    tied = jnp.where(squared == highest[layout.region, None], layout.pixel, _FAR)
    first = jax.ops.segment_min(jnp.min(tied, axis=1), layout.region, regions)
    seed = jnp.stack(jnp.divmod(first % (height * width), width), axis=1)
    seed = jnp.where((highest > 0)[:, None], seed, corner)
    own = seed[layout.region]
    to_seed = (layout.row - own[:, :1]) ** 2 + (layout.column - own[:, 1:]) ** 2
    # Without background, the first distances were arbitrary and are replaced.
    fresh = (k == 0) & full[layout.region, None]
    squared = jnp.where(fresh & layout.filled, to_seed, jnp.minimum(squared, to_seed))
    return squared, seeds.at[:, k].set(seed)

  seeds = jnp.zeros((regions, SUPERPIXELS, 2), jnp.int32)
  return jax.lax.fori_loop(0, SUPERPIXELS, place, (squared, seeds))[1]


def seed_steps(seeds: jax.Array) -> jax.Array:
  """Mean distance of a seed to the nearest other one: the larger of that in rows and in columns.

  Args:
    seeds: int32 `[R, 128, 2]`.

  Returns:
    float32 `[R]`, exact, because it is a sum of integers divided by 128.
  """
  difference = jnp.abs(seeds[:, :, None] - seeds[:, None])
  squared = jnp.sum(difference**2, axis=-1)
  itself = jnp.eye(SUPERPIXELS, dtype=bool)
  nearest = jnp.argmin(jnp.where(itself, _FAR, squared), axis=2)
  apart = jnp.take_along_axis(difference, nearest[:, :, None, None], axis=2)[:, :, 0]
  return jnp.max(jnp.sum(apart, axis=1), axis=1).astype(jnp.float32) / SUPERPIXELS
