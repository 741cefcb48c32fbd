"""Pixels of a batch, sorted by region and split into blocks of one region each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Pixels per block. The last block of a region is padded, by half a block on average.
BLOCK = 512


class Layout(NamedTuple):
  """Positions of the pixels of each region; a region is `image * num_labels + label`.

  Blocks of a region are contiguous, and its pixels are in Z-order (Morton 1966), so that a block
  covers a compact part of the image. All images have the same number of blocks, which is enough for
  any label map; the rest are empty.

  Attributes:
    region: int32 `[N]`, region of each block; for an empty block, any region of its image.
    pixel: int32 `[N, T]`, index of each pixel in the flattened batch `[B * H * W]`.
    row, column: int32 `[N, T]`, position of the pixel in its image.
    filled: bool `[N, T]`, false for padding.
    count: int32 `[R]`, number of pixels of each region.
    box: int32 `[R, 4]`, first row, last row, first column and last column of each region; in a
      region without pixels, the last row is before the first one.
  """

  region: jax.Array
  pixel: jax.Array
  row: jax.Array
  column: jax.Array
  filled: jax.Array
  count: jax.Array
  box: jax.Array

  @property
  def num_regions(self) -> int:
    """Number of regions of all images, `R`."""
    return len(self.count)


def arrange(labels: jax.Array, num_labels: int) -> Layout:
  """Sorts the pixels of a batch by region.

  Args:
    labels: int `[B, H, W]`; pixels with a label outside `0 ... num_labels - 1` are dropped.
    num_labels: number of labels, `L`.
  """
  batch, height, width = labels.shape
  size = height * width
  valid = (labels >= 0) & (labels < num_labels)
  ids = jnp.where(valid, labels, num_labels).reshape(batch, size).astype(jnp.int32)
  row, column = jnp.divmod(jnp.arange(size, dtype=jnp.int32), width)
  # A single sort key: the label, then the position as interleaved bits, which can be separated.
  places = 4 ** (max(height, width) - 1).bit_length()
  order = jnp.sort(ids * places + 2 * _spread(row) + _spread(column), axis=1)
  bounds = jnp.arange(num_labels + 1, dtype=jnp.int32) * places
  starts = jax.vmap(lambda keys: jnp.searchsorted(keys, bounds))(order).astype(jnp.int32)
  order = order % places
  count = starts[:, 1:] - starts[:, :-1]

  blocks = -(-size // BLOCK) + num_labels
  ends = jnp.cumsum(-(-count // BLOCK), axis=1)
  block = jnp.arange(blocks, dtype=jnp.int32)
  region = jax.vmap(lambda ends: jnp.searchsorted(ends, block, side='right'))(ends)
  region = jnp.minimum(region, num_labels - 1).astype(jnp.int32)
  of_region = lambda values: jnp.take_along_axis(values, region, axis=1)
  nth = block - of_region(ends - -(-count // BLOCK))
  offset = nth[..., None] * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
  filled = offset < of_region(count)[..., None]
  index = jnp.where(filled, of_region(starts[:, :-1])[..., None] + offset, 0)
  place = jnp.take_along_axis(order, index.reshape(batch, -1), axis=1).reshape(index.shape)

  image = jnp.arange(batch, dtype=jnp.int32)[:, None]
  region = (region + image * num_labels).reshape(-1)
  row, column = _gather(place >> 1), _gather(place)
  pixel = row * width + column + image[..., None] * size
  row, column, pixel, filled = (x.reshape(-1, BLOCK) for x in (row, column, pixel, filled))

  def extent(values, reduce, beyond):
    ends = getattr(jnp, reduce)(jnp.where(filled, values, beyond), axis=1)
    ops = {'min': jax.ops.segment_min, 'max': jax.ops.segment_max}
    return ops[reduce](ends, region, batch * num_labels)

  return Layout(
    region,
    pixel,
    row,
    column,
    filled,
    count.reshape(-1),
    jnp.stack(
      [
        extent(row, 'min', height),
        extent(row, 'max', -1),
        extent(column, 'min', width),
        extent(column, 'max', -1),
      ],
      axis=1,
    ),
  )


def _spread(x: jax.Array) -> jax.Array:
  """Moves bit `i` of numbers below 2^15 to bit `2 i`."""
  for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
    x = (x | (x << shift)) & mask
  return x


def _gather(x: jax.Array) -> jax.Array:
  """Moves bit `2 i` to bit `i`, and drops the other bits."""
  x = x & 0x55555555
  for shift, mask in ((1, 0x33333333), (2, 0x0F0F0F0F), (4, 0x00FF00FF), (8, 0x0000FFFF)):
    x = (x | (x >> shift)) & mask
  return x


def to_image(layout: Layout, values: jax.Array, shape: tuple[int, ...], outside: int) -> jax.Array:
  """Values of pixels, `[N, T]`, at their positions in the batch, `[B, H, W]`.

  Args:
    layout: layout of the pixels.
    values: `[N, T]`.
    shape: `(B, H, W)`.
    outside: value of pixels in no region.
  """
  size = shape[0] * shape[1] * shape[2]
  place = jnp.where(layout.filled, layout.pixel, size).reshape(-1)
  flat = jnp.full(size, outside, values.dtype).at[place].set(values.reshape(-1), mode='drop')
  return flat.reshape(shape)
