"""Overlapping tiles along an axis."""

from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
  """A tile along one axis.

  Attributes:
    tile: the tile, in coordinates of the whole axis.
    window: the tile with its surroundings, in coordinates of the whole axis.
    core: the tile, in coordinates of the window.
  """

  tile: slice
  window: slice
  core: slice


def spans(length: int, tile: int, halo: int) -> Iterator[Span]:
  """Tiles of an axis, with at least `halo` around each of them, or up to the ends of the axis.

  All windows have the same size, so that a computation on windows compiles once. Windows at the
  ends of the axis end there, where layers pad as for the whole axis.
  """
  size = min(length, tile + 2 * halo)
  for start in range(0, length, tile):
    stop = min(start + tile, length)
    first = min(max(start - halo, 0), length - size)
    yield Span(slice(start, stop), slice(first, first + size), slice(start - first, stop - first))
