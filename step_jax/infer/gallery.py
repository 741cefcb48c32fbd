"""Pictures side by side."""

from collections.abc import Sequence

import numpy as np


def grid(rows: Sequence[Sequence[np.ndarray]], gap: int = 2) -> np.ndarray:
  """Lays out pictures in rows on white.

  Args:
    rows: of uint8 `[h, w, 3]`; sizes may differ, rows may be of different length.
    gap: white pixels between pictures.

  Returns:
    uint8 `[H, W, 3]`.
  """
  height = max(picture.shape[0] for row in rows for picture in row)
  width = max(picture.shape[1] for row in rows for picture in row)
  columns = max(len(row) for row in rows)
  canvas = np.full(
    (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8
  )
  for i, row in enumerate(rows):
    for j, picture in enumerate(row):
      top, left = i * (height + gap), j * (width + gap)
      canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
  return canvas
