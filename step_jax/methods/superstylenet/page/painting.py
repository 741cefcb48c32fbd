"""Reads painted label maps, and draws regions and superpixels."""

import numpy as np

from step_jax.data import labels as labels_lib
from step_jax.data import pictures
from step_jax.errors import DataError
from step_jax.infer import gallery

_LINE, _MARK = (255, 255, 255), (20, 20, 20)
# Minimum side of images with outlines, px.
_OUTLINED = 512
# Opacity of regions that are not selected.
_FADED = 0.45


def colors(num_labels: int) -> np.ndarray:
  """Colours of classes, uint8 `[L, 3]`."""
  return gallery.shown(np.arange(num_labels)[None])[0]


def read(painted: np.ndarray | None, num_labels: int, size: tuple[int, int]) -> np.ndarray:
  """Reads a painted label map.

  Each pixel gets the class of the nearest colour. Anti-aliased edges of strokes mix two colours,
  which may give a third. If there are such pixels, a majority filter follows.

  Args:
    painted: uint8 `[H, W, 3 or 4]` in `colors`; transparency is ignored.
    num_labels: number of classes, L.
    size: height and width of the label map.

  Returns:
    uint8 `[*size]`.

  Raises:
    DataError: there is no painting.
  """
  if painted is None or not painted.size:
    raise DataError('the canvas is empty: choose a label map first, and paint on it')
  nearest, distance = labels_lib.nearest_colors(painted[..., :3], colors(num_labels))
  if distance.any():
    nearest = labels_lib.majority(nearest, num_labels)
  return pictures.resize(nearest, size)


def borders(parts: np.ndarray) -> np.ndarray:
  """Pixels whose right or lower neighbour is in another part, bool `[H, W]` like `parts`."""
  wide = np.pad(parts, ((0, 1), (0, 1)), mode='edge')
  return (parts != wide[:-1, 1:]) | (parts != wide[1:, :-1])


def superpixels(image: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
  """Draws the outlines of regions (dark) and of their superpixels (white) on an image.

  Args:
    image: uint8 `[H, W, 3]`.
    labels: int `[H, W]`.
    parts: superpixels from `Extractor.superpixels`, int `[size, size]`.

  Returns:
    uint8 `[k size, k size, 3]`, large enough for thin outlines.
  """
  scale = -(-_OUTLINED // len(parts))
  parts = parts.repeat(scale, axis=0).repeat(scale, axis=1)
  size = parts.shape
  outlined = pictures.resize(image, size).copy()
  outlined[borders(parts)] = _LINE
  outlined[borders(pictures.resize(labels, size))] = _MARK
  return outlined


def regions(labels: np.ndarray, chosen: int | None) -> np.ndarray:
  """A label map in colours, uint8 `[H, W, 3]`; regions that are not selected are faded."""
  image = gallery.shown(labels)
  if chosen is None:
    return image
  faded = np.rint(255 + _FADED * (image - 255.0)).astype(np.uint8)
  return np.where((labels == chosen)[..., None], image, faded)
