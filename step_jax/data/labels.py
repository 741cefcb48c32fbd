"""Reads label maps, files or colour-coded images, as integer maps with one class per pixel.

A *palette* defines how a file encodes classes. Index palettes use the stored number of a pixel;
colour palettes use the class with the nearest colour.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import hashlib
import os

import numpy as np
from PIL import ImageOps

from step_jax import files
from step_jax.data import pictures
from step_jax.errors import ConfigError, DataError, RunError, first_line, shown

# Palettes of files with numbers. `index_void`: 255 means that a pixel has no class; it then gets
# the last class.
INDEX = ('index', 'index_from_1', 'index_void')
VOID = 255
# Palettes of files with colours: class -> RGB.
COLORS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
  # CMP facades as pix2pix publishes them: background, wall, door, window, window sill, window head,
  # shutter, balcony, trim, cornice, column, entrance.
  'facades': (
    (0, 0, 222), (0, 48, 255), (0, 128, 255), (0, 207, 255), (32, 255, 224), (112, 254, 142),
    (192, 255, 63), (255, 240, 1), (255, 159, 0), (255, 80, 0), (253, 0, 0), (174, 0, 1),
  ),
  'swatches': (
    (230, 230, 230), (120, 120, 120), (220, 60, 60), (60, 170, 80), (60, 90, 210)
  ),
}  # fmt: skip
# Classes are stored as uint8, and 255 may mean "no class".
MOST_CLASSES = 255
# Side of the window of the majority filter, px. Compression and antialiasing cause wrong classes in
# strips of two pixels along edges.
_WINDOW = 5
# Colours further than this from all colours of the palette are not due to compression.
_FAR = 100


@dataclasses.dataclass(frozen=True)
class Labels:
  """How a data set encodes label maps, from the group `data` of a configuration.

  Attributes:
    palette: one of `INDEX`, a name in `COLORS`, or a file of colours, see `read_palette`; empty:
      label maps are not read.
    classes: number of classes; labels are 0 to `classes - 1`.
    flip_swaps: pairs of classes to swap when an image is mirrored.
    side: image of a pair, `A` or `B`, that encodes the classes if there are no label files.
  """

  palette: str = ''
  classes: int = 0
  flip_swaps: Sequence[tuple[int, int]] = ()
  side: str = 'A'

  @classmethod
  def of(cls, settings) -> 'Labels':
    """The settings of `config.data`; without a palette if the stage has no such fields."""
    if not settings.get('palette', ''):
      return cls()
    side = 'A' if settings.direction == 'AtoB' else 'B'
    return cls(settings.palette, settings.classes, tuple(settings.flip_swaps), side)

  @functools.cached_property
  def colors(self) -> np.ndarray | None:
    """Colours of the classes, int32 `[classes, 3]`; None for index palettes.

    Raises:
      ConfigError: there is no such palette.
    """
    if not self.palette or self.palette in INDEX:
      return None
    return np.array(COLORS.get(self.palette) or read_palette(self.palette), np.int32)

  @property
  def identity(self) -> str:
    """Text that changes if files are read in another way."""
    digest = '' if self.colors is None else hashlib.sha256(self.colors.tobytes()).hexdigest()[:8]
    return f'{self.palette}{digest}'

  def mirror(self) -> np.ndarray:
    """Class of a mirrored pixel for each class, uint8 `[classes]`.

    Raises:
      ConfigError: `flip_swaps` has a class that does not exist.
    """
    order = np.arange(self.classes, dtype=np.uint8)
    for a, b in self.flip_swaps:
      if not (0 <= a < self.classes and 0 <= b < self.classes):
        raise ConfigError(
          f'config field data.flip_swaps={self.flip_swaps}: classes are 0 to {self.classes - 1}'
        )
      order[[a, b]] = b, a
    return order

  def read(self, path: str | os.PathLike) -> np.ndarray:
    """Reads a label map as uint8 `[H, W]`, with values from 0 to `classes - 1`.

    Raises:
      DataError: the file is missing or damaged, has another palette, or unknown classes.
    """
    return self.check(self.stored(path), shown(str(path)))

  def stored(self, path: str | os.PathLike) -> np.ndarray:
    """Like `read`, without checking the number of classes; `index_void` keeps 255.

    Raises:
      DataError: the file is missing or damaged, or has another palette.
    """
    name = shown(str(path))
    try:
      with pictures.open_image(files.readable(files.path(path))) as image:
        kind, image = image.format, ImageOps.exif_transpose(image)
        if self.colors is not None:
          return self.from_colors(np.asarray(image.convert('RGB')), name)
        values = np.asarray(image)
    except FileNotFoundError:
      raise DataError(f'{name}: no such label map') from None
    except (RunError, DataError):
      raise
    except Exception as error:  # Parsers may raise anything on damaged files.
      raise DataError(
        f'{name}: cannot be read as a label map ({first_line(error)}): replace or remove it'
      ) from None
    if kind != 'PNG':
      raise DataError(
        f'{name}: is a {kind} file, whose compression changes class numbers: save label maps as '
        'PNG, or set data.palette for colour-coded ones'
      )
    if image.mode in ('LA', 'RGBA'):
      values = values[..., :-1]
    return self._from_numbers(values, name)

  def from_image(self, image: np.ndarray, name: str) -> np.ndarray:
    """Like `stored`, for a colour-coded image uint8 `[H, W, 3]`; `name` is used in messages."""
    if self.colors is None:
      return self._from_numbers(image, name)
    return self.from_colors(image, name)

  def from_colors(self, image: np.ndarray, name: str) -> np.ndarray:
    """Class of the nearest colour; a majority filter follows unless all colours are exact.

    Raises:
      DataError: most colours are not in the palette.
    """
    nearest, distance = nearest_colors(image, self.colors)
    if not distance.any():
      return nearest
    if np.mean(distance > _FAR**2) > 0.5:
      raise DataError(
        f'{name}: most of its colours are not in the palette {self.palette}: set data.palette to '
        'the palette of these label maps'
      )
    return majority(nearest, len(self.colors))

  def _from_numbers(self, values: np.ndarray, name: str) -> np.ndarray:
    if values.ndim == 3:
      if (values != values[..., :1]).any():
        raise DataError(
          f'{name}: is a colour image, not a map of class numbers: set data.palette to its colours'
        )
      values = values[..., 0]
    values = values.astype(np.int64)
    if self.palette == 'index_from_1':
      if not values.all():
        raise DataError(f'{name}: has the value 0, but classes count from 1 (data.palette)')
      values = values - 1
    if values.min() < 0 or values.max() > VOID:
      worst = values.max() if values.max() > VOID else values.min()
      raise DataError(
        f'{name}: has the class {worst}: classes are numbers from 0 to {MOST_CLASSES - 1}: '
        'renumber them'
      )
    return values.astype(np.uint8)

  def check(self, stored: np.ndarray, name: str) -> np.ndarray:
    """Checks the output of `stored` and returns labels 0 to `classes - 1`.

    Raises:
      DataError: a class is out of range.
    """
    self.check_colors()
    self.check_values(dict.fromkeys(np.unique(stored).tolist(), name))
    return self.numbered(stored)

  def numbered(self, stored: np.ndarray) -> np.ndarray:
    """Replaces "no class" by the last class, if the palette is `index_void`."""
    if self.palette != 'index_void':
      return stored
    return np.where(stored == VOID, np.uint8(self.classes - 1), stored)

  def check_colors(self) -> None:
    """Checks that the palette has one colour per class.

    Raises:
      ConfigError: the numbers differ.
    """
    if self.colors is not None and len(self.colors) != self.classes:
      raise ConfigError(
        f'config field data.classes={self.classes}: the palette {self.palette} has '
        f'{len(self.colors)} colours: set data.classes={len(self.colors)}'
      )

  def check_values(self, values: Mapping[int, str]) -> None:
    """Checks that the classes in a data set fit the configuration.

    Args:
      values: class in the data set -> name of a file that has it.

    Raises:
      DataError: a class is out of range.
    """
    void = self.palette == 'index_void'
    numbers = [value for value in values if not (void and value == VOID)]
    highest = max(numbers, default=0)
    if highest < self.classes - void:
      return
    needed = highest + 1 + void
    extra = ' (the last is for pixels without a class)' if void else ''
    remedy = f'set data.classes={needed}{extra}, or correct the label maps'
    if highest == VOID:
      remedy = 'set data.palette=index_void if 255 means "no class", or correct the label maps'
    raise DataError(
      f'{values[highest]}: has the class {highest}, but data.classes={self.classes} allows '
      f'0 to {self.classes - 1 - void}: {remedy}'
    )


# For stages without label maps.
NONE = Labels()


def read_palette(path: str) -> tuple[tuple[int, int, int], ...]:
  """Reads colours from a text file: one class per line, `R G B`, optionally followed by a name.

  Raises:
    ConfigError: the file does not exist or has another format.
  """
  field = f'config field data.palette={shown(path)}'
  file = files.path(path)
  try:
    lines = [line.split() for line in file.read_text('utf-8').splitlines() if line.strip()]
    colors = tuple(tuple(int(part) for part in line[:3]) for line in lines)
    if not all(len(color) == 3 and set(color) <= set(range(256)) for color in colors):
      raise ValueError('a colour is three numbers from 0 to 255')
    if not 0 < len(colors) <= MOST_CLASSES or len(set(colors)) < len(colors):
      raise ValueError(f'it must have 1 to {MOST_CLASSES} different colours')
    return colors
  except FileNotFoundError:
    names = ', '.join((*INDEX, *COLORS))
    raise ConfigError(f'{field}: use one of {names}, or a file of one R G B per line') from None
  except (OSError, ValueError) as error:
    raise ConfigError(
      f'{field}: cannot be read as a palette ({first_line(error)}): write one R G B per line'
    ) from None


def nearest_colors(image: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Class of the nearest of `colors`, uint8 `[H, W]`, and its squared distance, int32 `[H, W]`."""
  pixels = image.astype(np.int32)
  best = np.full(image.shape[:2], np.iinfo(np.int32).max, np.int32)
  nearest = np.zeros(image.shape[:2], np.uint8)
  for number, color in enumerate(colors):
    distance = ((pixels - color) ** 2).sum(axis=-1, dtype=np.int32)
    closer = distance < best
    best[closer], nearest[closer] = distance[closer], number
  return nearest, best


def majority(labels: np.ndarray, classes: int) -> np.ndarray:
  """Most frequent class in the 5x5 px around each pixel; ties go to its own class, then the first.

  Args:
    labels: uint8 `[H, W]`.
    classes: labels are below this.
  """
  padded = np.pad(labels, _WINDOW // 2, mode='edge')
  height, width = labels.shape
  best = np.zeros(labels.shape, np.uint8)
  result = labels.copy()
  for number in range(classes):
    member = (padded == number).view(np.uint8)
    if not member.any():
      continue
    rows = sum(member[i : i + height] for i in range(_WINDOW))
    # Twice the count, plus one for the pixel's own class, which then wins ties.
    votes = 2 * sum(rows[:, i : i + width] for i in range(_WINDOW)) + (labels == number)
    wins = votes > best
    best[wins], result[wins] = votes[wins], number
  return result
