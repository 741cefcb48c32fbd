"""Images of the page: label maps as they are painted, regions and superpixels as they are shown."""

import numpy as np

from step_jax.data import labels as labels_lib
from step_jax.data import pictures
from step_jax.errors import DataError
from step_jax.infer import gallery

_LINE, _MARK = (255, 255, 255), (20, 20, 20)
# Side of images with outlines at least, px.
_OUTLINED = 512
# How much of the colour of regions is left where they are not the chosen one.
_FADED = 0.45


def colors(num_labels: int) -> np.ndarray:
  """Colours that classes are painted and shown in, uint8 `[L, 3]`."""
  return gallery.shown(np.arange(num_labels)[None])[0]


def read(painted: np.ndarray | None, num_labels: int, size: tuple[int, int]) -> np.ndarray:
  """The label map that was painted.

  A pixel has the class of the nearest colour. Smoothed edges of strokes mix two colours, which may
  be near to a third one: where there are any, the most frequent class around a pixel counts.

  Args:
    painted: uint8 `[H, W, 3 or 4]`, in `colors`; what is transparent is taken by its colour.
    num_labels: L.
    size: height and width of the map.

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
  """Pixels whose right or lower neighbour is of another part: bool, like `parts`, int `[H, W]`."""
  wide = np.pad(parts, ((0, 1), (0, 1)), mode='edge')
  return (parts != wide[:-1, 1:]) | (parts != wide[1:, :-1])


def superpixels(image: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
  """An image with the outlines of its regions, dark, and of their superpixels, white.

  Args:
    image: uint8 `[H, W, 3]`.
    labels: int `[H, W]`.
    parts: superpixels as `Extractor.superpixels` numbers them, int `[size, size]`.

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
  """A label map in colours, uint8 `[H, W, 3]`; regions other than the chosen one are faded."""
  image = gallery.shown(labels)
  if chosen is None:
    return image
  faded = np.rint(255 + _FADED * (image - 255.0)).astype(np.uint8)
  return np.where((labels == chosen)[..., None], image, faded)
