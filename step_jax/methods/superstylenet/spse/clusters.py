"""Two passes of localised k-means over the pixels of every region of a batch at once."""

import jax
import jax.numpy as jnp

from step_jax.methods.superstylenet.spse.layout import BLOCK, Layout
from step_jax.methods.superstylenet.spse.splines import SUPERPIXELS
from step_jax.methods.superstylenet.spse.window import ITERATIONS

# Superpixels that one compiled loop body compares, so that the nearest so far and its distance stay
# in registers.
_TOGETHER = 8
# Where the centre of a superpixel without pixels is: no window around it meets the image.
_NOWHERE = -1e6


def cluster(
  layout: Layout,
  features: jax.Array,
  seeds: jax.Array,
  steps: jax.Array,
  reach: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
  """Superpixels of all regions: ten iterations by distance, then ten by distance and colour.

  Every pixel joins the nearest centre whose window contains it, the lowest one among equals; a
  pixel in no window stays where it was. Then centres move to the mean of their pixels; one without
  pixels takes no part any more.

  Args:
    layout: of the pixels.
    features: float32 `[N, T, 3]`, Lab / 10.
    seeds: int32 `[R, 128, 2]`.
    steps: float32 `[R]`, above zero where the result matters.
    reach: rows and columns that a window reaches to each side of a centre.

  Returns:
    int32 `[N, T]` each: the superpixel of every pixel after the first and after the second pass, -1
    where it has none.
  """
  weight = jnp.where(steps > 0, 1.0 / (steps * steps), 0.0)[layout.region, None]
  places = [layout.row.astype(jnp.float32), layout.column.astype(jnp.float32)]
  points = [*places, *(features[..., i] for i in range(3))]
  table = jnp.stack([*points, jnp.ones_like(points[0])], axis=-1).reshape(-1, 6)

  def centres_of(label):
    sums = jax.ops.segment_sum(table, segments(layout, label), layout.num_regions * SUPERPIXELS)
    count = sums[:, 5:]
    means = sums[:, :5] / jnp.maximum(count, 1)
    means = jnp.where(count > 0, means, _NOWHERE)
    return means.reshape(layout.num_regions, SUPERPIXELS, 5)

  def iterate(label, centres, colour):
    for_block = lambda values: values[layout.region]
    parts = [for_block(centres[..., i]) for i in range(5 if colour else 2)]
    # Rows from trunc(max(y - r, 0)) up to, without it, trunc(min(y + r + 1, H)), and columns alike,
    # are the pixels of the image within r of the centre's floor.
    parts += [for_block(jnp.floor(centres[..., i])) for i in range(2)]
    label = _nearest(points, label, parts, reach, weight if colour else None)
    label = jnp.where(layout.filled, label, -1)
    return label, centres_of(label)

  def run(centres, colour):
    label = jnp.full((len(layout.region), BLOCK), -1, jnp.int32)
    body = lambda _, carry: iterate(*carry, colour)
    return jax.lax.fori_loop(0, ITERATIONS, body, (label, centres))

  start = jnp.zeros((layout.num_regions, SUPERPIXELS, 5), jnp.float32)
  start = start.at[..., :2].set(seeds.astype(jnp.float32))
  label_dist, centres = run(start, colour=False)
  label_full, _ = run(centres, colour=True)
  return label_dist, label_full


def segments(layout: Layout, label: jax.Array) -> jax.Array:
  """Superpixels numbered over all regions, for sums: int32 `[N * T]`, `R * 128` for no superpixel.

  Args:
    layout: of the pixels.
    label: int32 `[N, T]`, -1 for none.
  """
  found = layout.region[:, None] * SUPERPIXELS + label
  return jnp.where(label >= 0, found, layout.num_regions * SUPERPIXELS).reshape(-1)


def _nearest(points, label, parts, reach, weight):
  """The nearest superpixel of each pixel `[N, T]`, given what the superpixels of its block are.

  Args:
    points: row, column and Lab of pixels, `[N, T]` each.
    label: int32 `[N, T]`, kept where no window contains the pixel.
    parts: `[N, 128]` each: centre (two or five numbers), middle row and column of its window.
    reach: rows and columns to each side of the middle.
    weight: `[N, 1]`, of squared distances beside those of colours; None compares distances alone.
  """
  row, column = points[:2]

  def compare(i, carry):
    best, label = carry
    cut = lambda part: jax.lax.dynamic_slice_in_dim(part, i * _TOGETHER, _TOGETHER, axis=1)
    chunk = [cut(part) for part in parts]
    for k in range(_TOGETHER):
      *centre, y, x = (part[:, k : k + 1] for part in chunk)
      squared = jnp.square(row - centre[0]) + jnp.square(column - centre[1])
      if weight is not None:
        squared *= weight
        for point, colour in zip(points[2:], centre[2:], strict=True):
          squared += jnp.square(point - colour)
      closer = squared < best
      closer &= (jnp.abs(row - y) <= reach[0]) & (jnp.abs(column - x) <= reach[1])
      best = jnp.where(closer, squared, best)
      label = jnp.where(closer, i * _TOGETHER + k, label)
    return best, label

  best = jnp.full(label.shape, jnp.inf, jnp.float32)
  return jax.lax.fori_loop(0, SUPERPIXELS // _TOGETHER, compare, (best, label))[1]
