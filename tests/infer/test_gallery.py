"""Grids of images."""

import numpy as np

from step_jax.infer import gallery


def test_rows_and_columns_are_no_larger_than_needed():
  label, picture, low = (
    np.full((*size, 3), value, np.uint8) for size, value in (((8, 30), 1), ((8, 6), 2), ((4, 6), 3))
  )
  grid = gallery.grid([[label, picture, picture], [label[:4], low]], gap=2)
  assert grid.shape == (8 + 2 + 4, 30 + 2 + 6 + 2 + 6, 3)
  np.testing.assert_array_equal(grid[:8, 40:46], picture)
  np.testing.assert_array_equal(grid[10:, 32:38], low)
  assert np.all(grid[8:10] == 255) and np.all(grid[10:, 40:] == 255)
