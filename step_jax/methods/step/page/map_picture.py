"""Draws the map of styles and interprets clicks on it."""

from collections.abc import Sequence
import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from step_jax.methods.step.page import codes, run_pictures

SIDE = 900
_DOT = 8
_THUMBNAIL = 76
_RING = 16
_GREY = (110, 120, 140)
_LINE = (255, 255, 255)
_MARK = (220, 30, 60)


@dataclasses.dataclass(frozen=True)
class MapPicture:
  """An image of the map of styles, with thumbnails where there is room and dots elsewhere.

  Attributes:
    style_map: positions of the styles.
    pictured: indices of the styles that are shown as thumbnails.
    image: uint8 `[SIDE, SIDE, 3]`.
  """

  style_map: codes.StyleMap
  pictured: np.ndarray
  image: np.ndarray

  @classmethod
  def of(cls, style_map: codes.StyleMap, thumbnails: Sequence[np.ndarray]) -> 'MapPicture':
    """Draws a map.

    Args:
      style_map: map of N styles.
      thumbnails: thumbnails of the N styles, uint8 `[h, w, 3]`, or empty.
    """
    places = style_map.points * SIDE
    pictured = apart(places, _THUMBNAIL + 6) if thumbnails else np.zeros(0, int)
    image = Image.new('RGB', (SIDE, SIDE), 'white')
    pen = ImageDraw.Draw(image)
    for i, place in enumerate(places):
      color = tuple(thumbnails[i].reshape(-1, 3).mean(axis=0).astype(int)) if thumbnails else _GREY
      pen.ellipse(_box(place, _DOT), fill=color, outline=_LINE)
    for i in pictured:
      small = Image.fromarray(run_pictures.thumbnail(thumbnails[i], _THUMBNAIL))
      corner = np.rint(places[i] - np.array(small.size) / 2).astype(int)
      image.paste(small, tuple(corner.tolist()))
    return cls(style_map, pictured, np.asarray(image))

  def at(self, x: float, y: float) -> int:
    """Index of the style at `x`, `y` in [0, 1]: the thumbnail there, or the nearest dot."""
    if len(self.pictured):
      away = np.abs(self.style_map.points[self.pictured] - [x, y]).max(axis=1) * SIDE
      if away.min() <= _THUMBNAIL / 2:
        return int(self.pictured[away.argmin()])
    return self.style_map.nearest(x, y)

  def marked(self, code: np.ndarray) -> np.ndarray:
    """The image with a ring at a code `[Z]`, or at the border if the code is outside the map."""
    image = Image.fromarray(self.image)
    pen = ImageDraw.Draw(image)
    place = np.clip(self.style_map.place(code[None])[0] * SIDE, _RING, SIDE - _RING)
    pen.ellipse(_box(place, _RING), outline=_LINE, width=8)
    pen.ellipse(_box(place, _RING - 1), outline=_MARK, width=5)
    return np.asarray(image)


def apart(places: np.ndarray, distance: float) -> np.ndarray:
  """Indices of positions `[N, 2]` that are at least `distance` apart in x or y.

  Chosen greedily, in order.
  """
  chosen: list[int] = []
  for i, place in enumerate(places):
    if not chosen or np.abs(places[chosen] - place).max(axis=1).min() >= distance:
      chosen.append(i)
  return np.array(chosen, int)


def _box(place: np.ndarray, radius: float) -> tuple[float, ...]:
  return (*(place - radius).tolist(), *(place + radius).tolist())
