"""Two passes of localised k-means over the pixels of all regions of a batch."""

import jax
import jax.numpy as jnp

from step_jax.methods.superstylenet.spse.layout import BLOCK, Layout
from step_jax.methods.superstylenet.spse.splines import SUPERPIXELS
from step_jax.methods.superstylenet.spse.window import ITERATIONS

# Superpixels compared per loop iteration, so that the current minimum and its index stay in
# registers.
_TOGETHER = 8
# Blocks that a CPU processes together, so that their data fits in its cache.
_SLAB = 32
# Tolerance for rounding in bounds of distances, which are accurate to 1e-6.
_SLACK = 1.0001
# Centre of superpixels without pixels; a window around it does not overlap the image.
_NOWHERE = -1e6


def cluster(
  layout: Layout,
  features: jax.Array,
  seeds: jax.Array,
  steps: jax.Array,
  reach: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
  """Superpixels of all regions: ten iterations by distance, then ten by distance and colour.

  Each pixel is assigned to the nearest centre whose window contains it, with ties to the lowest
  index; a pixel in no window keeps its assignment. Then centres move to the mean of their pixels. A
  centre without pixels is dropped.

  Args:
    layout: layout of the pixels.
    features: float32 `[N, T, 3]`, Lab / 10.
    seeds: int32 `[R, 128, 2]`.
    steps: float32 `[R]`; results are meaningless for regions where it is not above zero.
    reach: rows and columns of a window on each side of its centre.

  Returns:
    The superpixel of each pixel after the first and after the second pass, int32 `[N, T]` each; -1
    for none.
  """
  weight = jnp.where(steps > 0, 1.0 / (steps * steps), 0.0)[layout.region, None]
  places = [layout.row.astype(jnp.float32), layout.column.astype(jnp.float32)]
  points = [*places, *(features[..., i] for i in range(3))]
  table = jnp.stack([*points, jnp.ones_like(points[0])], axis=-1).reshape(-1, 6)
  lowest = [jnp.min(x, axis=1, where=layout.filled, initial=jnp.inf) for x in points]
  highest = [jnp.max(x, axis=1, where=layout.filled, initial=-jnp.inf) for x in points]
  boxes = list(zip(lowest, highest, strict=True))

  def centres_of(label):
    sums = jax.ops.segment_sum(table, segments(layout, label), layout.num_regions * SUPERPIXELS)
    count = sums[:, 5:]
    means = sums[:, :5] / jnp.maximum(count, 1)
    means = jnp.where(count > 0, means, _NOWHERE)
    return means.reshape(layout.num_regions, SUPERPIXELS, 5)

  def iterate(label, centres, colour):
    count = 5 if colour else 2
    scale = weight if colour else jnp.ones_like(weight)
    near, parts = _candidates(
      [centres[layout.region, :, i] for i in range(count)], boxes[:count], reach, scale
    )
    label = _nearest(points[:count], label, near, parts, reach, scale)
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
  """Superpixel ids over all regions, for segment sums: int32 `[N * T]`, `R * 128` for none.

  Args:
    layout: layout of the pixels.
    label: int32 `[N, T]`, -1 for none.
  """
  segment = layout.region[:, None] * SUPERPIXELS + label
  return jnp.where(label >= 0, segment, layout.num_regions * SUPERPIXELS).reshape(-1)


def _candidates(centres, boxes, reach, scale):
  """Superpixels that may be the nearest one of a pixel in a block, in ascending order.

  A superpixel is excluded if its window does not overlap the block, or if there is another one
  whose window contains the bounding box of the block, and whose largest distance to the box is
  smaller than the smallest distance of the first one.

  Args:
    centres: row, column and, in the second pass, Lab, `[N, 128]` each.
    boxes: minimum and maximum of each in the block, `[N]`; in an empty block, the minimum is above
      the maximum.
    reach: rows and columns of a window on each side.
    scale: weight of squared distances relative to colours, `[N, 1]`.

  Returns:
    Number of candidates, int32 `[N]`; and with the candidates first, `[N, 128]` each: their
    numbers, their centres, and the middle row and column of their windows.
  """
  least = most = 0.0
  meets = covers = True
  # The rows from trunc(max(y - r, 0)) to trunc(min(y + r + 1, H)), exclusive, are those within r of
  # the floor of the centre. The same holds for columns.
  middles = [jnp.floor(centre) for centre in centres[:2]]
  for i, (centre, box) in enumerate(zip(centres, boxes, strict=True)):
    low, high = (side[:, None] for side in box)
    factor = scale if i < 2 else 1.0
    gap = jnp.maximum(jnp.maximum(low - centre, centre - high), 0.0)
    least += factor * jnp.square(gap)
    most += factor * jnp.square(jnp.maximum(centre - low, high - centre))
    if i < 2:
      meets &= (middles[i] - reach[i] <= high) & (middles[i] + reach[i] >= low)
      covers &= (middles[i] - reach[i] <= low) & (middles[i] + reach[i] >= high)
  bound = jnp.min(jnp.where(covers, most, jnp.inf), axis=1, keepdims=True)
  chosen = meets & (low <= high) & (least <= _SLACK * bound)

  rank = jnp.cumsum(chosen, axis=1, dtype=jnp.int32)
  count = rank[:, -1]
  block = jnp.arange(len(count), dtype=jnp.int32)[:, None]
  numbers = jnp.broadcast_to(jnp.arange(SUPERPIXELS, dtype=jnp.int32), chosen.shape)
  slot = jnp.where(chosen, rank - 1, SUPERPIXELS)
  index = jnp.zeros_like(numbers).at[block, slot].set(numbers, mode='drop')
  centres = [jnp.take_along_axis(x, index, axis=1) for x in centres]
  unused = numbers >= count[:, None]
  middles = [jnp.where(unused, _NOWHERE, jnp.floor(x)) for x in centres[:2]]
  return count, [index, *centres, *middles]


def _nearest(points, label, count, parts, reach, scale):
  """The nearest superpixel of each pixel `[N, T]` among the candidates of its block.

  Args:
    points: row, column and, in the second pass, Lab of pixels, `[N, T]` each.
    label: int32 `[N, T]`, kept for pixels in no window.
    count, parts: see `_candidates`.
    reach: rows and columns of a window on each side.
    scale: weight of squared distances relative to colours, `[N, 1]`.
  """

  def compare(i, carry, points, parts, scale):
    best, label = carry
    cut = lambda part: jax.lax.dynamic_slice_in_dim(part, i * _TOGETHER, _TOGETHER, axis=1)
    chunk = [cut(part) for part in parts]
    row, column, *colours = points
    for k in range(_TOGETHER):
      number, *centre, y, x = (part[:, k : k + 1] for part in chunk)
      squared = jnp.square(row - centre[0]) + jnp.square(column - centre[1])
      if colours:
        squared *= scale
        for point, colour in zip(colours, centre[2:], strict=True):
          squared += jnp.square(point - colour)
      closer = squared < best
      closer &= (jnp.abs(row - y) <= reach[0]) & (jnp.abs(column - x) <= reach[1])
      best = jnp.where(closer, squared, best)
      label = jnp.where(closer, number, label)
    return best, label

  def all_candidates(points, label, count, parts, scale):
    """Compares the pixels of blocks with all candidates."""
    body = lambda i, carry: compare(i, carry, points, parts, scale)
    best = jnp.full(label.shape, jnp.inf, jnp.float32)
    return jax.lax.fori_loop(0, -(-jnp.max(count) // _TOGETHER), body, (best, label))[1]

  def slabs(points, label, count, parts, scale):
    """Processes a few blocks at a time, grouped by their number of candidates."""
    size = min(_SLAB, len(label))
    rounds = -(-len(label) // size)
    # The last block may be processed several times, which does not change the result.
    order = jnp.pad(jnp.argsort(count), (0, rounds * size - len(label)), mode='edge')

    def body(i, label):
      chosen = jax.lax.dynamic_slice_in_dim(order, i * size, size)
      cut = lambda x: x[chosen]
      nearest = all_candidates(*jax.tree.map(cut, (points, label, count, parts, scale)))
      return label.at[chosen].set(nearest)

    return jax.lax.fori_loop(0, rounds, body, label)

  args = points, label, count, parts, scale
  return jax.lax.platform_dependent(*args, cpu=slabs, default=all_candidates)
