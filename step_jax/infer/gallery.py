"""Grids of images."""

from collections.abc import Iterable, Sequence
import colorsys
import itertools
import math

import numpy as np

from step_jax.data import pictures

# Maximum number of pixels of a `Grid`: 100 MB in memory.
_MOST_PIXELS = 2**25
# Minimum side of a thumbnail. If thumbnails of this size do not fit, some are left out.
_SMALLEST_SIDE = 64


class Grid:
  """A `grid` of bounded size that is built row by row.

  Images are scaled down to fit. If there are too many, only the first rows and columns are shown.

  Args:
    rows: number of rows that will be added.
    columns: number of images per row.
  """

  def __init__(self, rows: int, columns: int):
    self._side = max(_SMALLEST_SIDE, math.isqrt(_MOST_PIXELS // (rows * columns)))
    cells = _MOST_PIXELS // self._side**2
    self._columns = min(columns, cells)
    self._most_rows = max(1, cells // columns)
    self._rows: list[list[np.ndarray]] = []

  def thumbnail(self, image: np.ndarray) -> np.ndarray:
    """Scales an image, uint8 `[H, W, 3]`, down to its size in the grid."""
    scale = self._side / max(image.shape[:2])
    if scale >= 1:
      return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return pictures.resize(image, (height, width))

  def add(self, row: Iterable[np.ndarray]) -> None:
    """Adds a row of images, uint8 `[H, W, 3]`; consumes the whole iterable, image by image."""
    shown = []
    for image in row:
      if len(self._rows) < self._most_rows and len(shown) < self._columns:
        shown.append(self.thumbnail(image))
    if shown:
      self._rows.append(shown)

  def image(self) -> np.ndarray:
    """All rows so far, uint8 `[H, W, 3]`."""
    return grid(self._rows)


def shown(image: np.ndarray) -> np.ndarray:
  """An image for display, uint8 `[H, W, 3]`; label maps `[H, W]` get one colour per class."""
  if image.ndim == 3:
    return image
  # Hues are a golden section apart, so that neighbouring classes differ.
  hues = np.arange(256) * 0.618 % 1
  colors = [colorsys.hsv_to_rgb(hue, 0.65, 0.9) for hue in hues]
  return np.rint(np.array(colors) * 255).astype(np.uint8)[image]


def grid(rows: Sequence[Sequence[np.ndarray]], gap: int = 2) -> np.ndarray:
  """Lays out images in rows on white, each row as high and each column as wide as needed.

  Args:
    rows: rows of images, uint8 `[h, w, 3]`; image sizes and row lengths may differ.
    gap: white pixels between images.

  Returns:
    uint8 `[H, W, 3]`.
  """
  columns = itertools.zip_longest(*rows)
  heights = [max(picture.shape[0] for picture in row) for row in rows]
  widths = [
    max(picture.shape[1] for picture in column if picture is not None) for column in columns
  ]
  tops, lefts = ([0, *itertools.accumulate(side + gap for side in s)] for s in (heights, widths))
  canvas = np.full((tops[-1] - gap, lefts[-1] - gap, 3), 255, np.uint8)
  for top, row in zip(tops, rows, strict=False):
    for left, picture in zip(lefts, row, strict=False):
      canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
  return canvas
