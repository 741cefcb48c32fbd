"""Pictures side by side."""

from collections.abc import Sequence
import itertools

import numpy as np


def grid(rows: Sequence[Sequence[np.ndarray]], gap: int = 2) -> np.ndarray:
  """Lays out pictures in rows on white, each row as high and each column as wide as needed.

  Args:
    rows: of uint8 `[h, w, 3]`; sizes may differ, rows may be of different length.
    gap: white pixels between pictures.

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
