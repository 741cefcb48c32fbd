"""Inputs drawn by the user, for runs whose inputs are drawings."""

from collections.abc import Sequence
import itertools

import numpy as np
from PIL import Image

from step_jax.data import pictures as pictures_lib
from step_jax.errors import DataError

Color = tuple[int, int, int]

# Colours that differ by less than this count as the same.
_STEP = 8
# Minimum fraction of an image that its palette must cover; photographs have too many colours.
_FILLED = 0.8
# Colours that cover less than the first fraction are ignored. Those that cover less than the second
# and lie between two other colours are ignored too, because they come from anti-aliased lines.
_STAIN, _SMOOTHED = 0.002, 0.03


def palette(pictures: Sequence[np.ndarray], limit: int = 8) -> list[Color]:
  """The colours of drawings, most frequent first; empty if the images are not drawings.

  Args:
    pictures: images, uint8 `[H, W, 3]` each.
    limit: maximum number of colours of a drawing, including those of anti-aliased lines.
  """
  if not pictures:
    return []
  pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
  _, of_pixel, counts = np.unique(pixels // _STEP, axis=0, return_inverse=True, return_counts=True)
  of_pixel, shares = of_pixel.ravel(), counts / len(pixels)
  most = np.argsort(-shares, kind='stable')[:limit]
  if shares[most].sum() < _FILLED:
    return []
  colors: list[Color] = []
  for i in most[shares[most] > _STAIN]:
    color = _most_frequent(pixels[of_pixel == i])
    if shares[i] > _SMOOTHED or not _between(color, colors):
      colors.append(color)
  return colors


def _between(color: Color, others: Sequence[Color]) -> bool:
  """Whether a colour is a mixture of two others."""
  for a, b in itertools.combinations(np.array(others, float), 2):
    t = np.clip((color - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    if np.abs(a + t * (b - a) - color).max() < _STEP:
      return True
  return False


def _most_frequent(pixels: np.ndarray) -> Color:
  colors, counts = np.unique(pixels, axis=0, return_counts=True)
  return tuple(int(value) for value in colors[counts.argmax()])


def finish(drawn: np.ndarray | None, ground: Color, size: tuple[int, int]) -> np.ndarray:
  """Converts a drawing to a source image.

  Args:
    drawn: uint8 `[H, W, 4]`, transparent where nothing is drawn; or `[H, W, 3]`.
    ground: background colour.
    size: height and width of the source image.

  Returns:
    uint8 `[*size, 3]`.

  Raises:
    DataError: nothing is drawn.
  """
  empty = drawn is None or not drawn.size
  if not empty and drawn.shape[-1] == 4:
    empty = not drawn[..., 3].any()
    image = Image.fromarray(drawn)
    paper = Image.new('RGBA', image.size, (*ground, 255))
    drawn = np.asarray(Image.alpha_composite(paper, image).convert('RGB'))
  if empty or np.abs(drawn.astype(int) - ground).max() < _STEP:
    raise DataError('the canvas is empty: draw something on it, or choose an image')
  return pictures_lib.resize(drawn, size)
