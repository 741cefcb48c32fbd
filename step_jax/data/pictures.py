"""Reads common image files as RGB arrays, resizes them, and writes images and videos."""

import base64
from collections.abc import Iterable, Sequence
import io
import os
import pathlib
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from step_jax import files
from step_jax.errors import DataError, RunError, first_line, is_printable, shown

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp')
# The content of a file determines its format, not its name. Without this list, Pillow would try 40
# formats, some of which run programs (EPS uses Ghostscript).
_FORMATS = ('JPEG', 'PNG', 'WEBP')
# A small file can decode to an image of any size. Pillow warns at the same limit, 0.25 GiB.
_MOST_PIXELS = 2**30 // 4 // 3


def read_picture(path: str | os.PathLike) -> np.ndarray:
  """Reads a png, jpg or webp file as uint8 RGB `[H, W, 3]`.

  Grey, palette, CMYK and 16-bit images are converted, transparent images are put on white, and the
  EXIF rotation is applied.

  Raises:
    DataError: the file is missing, truncated, too large, or not an image.
  """
  name = shown(str(path))
  try:
    with open_image(files.readable(files.path(path))) as image:
      return _to_rgb(ImageOps.exif_transpose(image))
  except FileNotFoundError:
    raise DataError(f'{name}: no such image') from None
  except RunError:  # The bucket cannot be read.
    raise
  except Exception as error:  # Parsers may raise anything on damaged files.
    raise DataError(
      f'{name}: cannot be read as an image ({first_line(error)}): replace or remove it'
    ) from None


def open_image(file: pathlib.Path | BinaryIO) -> Image.Image:
  """Opens a png, jpg or webp image without decoding it.

  Raises:
    ValueError: it has too many pixels. Pillow raises other errors for damaged files.
  """
  image = Image.open(file, formats=_FORMATS)
  if image.width * image.height > _MOST_PIXELS:
    image.close()
    raise ValueError(
      f'{image.width}x{image.height} px, more than {_MOST_PIXELS / 1e6:.0f} million in all'
    )
  return image


def find(
  paths: Iterable[files.Path], folder: files.Path, extensions: tuple[str, ...] = EXTENSIONS
) -> list[files.Path]:
  """Sorts the paths with the given extensions and returns them.

  Raises:
    DataError: a name is not printable.
  """
  images = sorted(path for path in paths if path.suffix.lower() in extensions)
  for path in images:
    if not is_printable(str(path.relative_to(folder))):
      raise DataError(
        f'{shown(str(path))}: has control characters in its name, or bytes that are no '
        'UTF-8: rename or remove it'
      )
  return images


def _to_rgb(image: Image.Image) -> np.ndarray:
  if image.mode.startswith('I'):
    # Pillow clips 16-bit grey at 255 when asked for RGB; keep the high byte instead.
    grey = (np.asarray(image).astype(np.uint32) // 257).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
  if image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
  return np.asarray(image.convert('RGB'))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes uint8 `[H, W, 3]` to `size = (height, width)`: bicubic, antialiased on reduction.

  Label maps `[H, W]` are resized by nearest neighbour.
  """
  if image.shape[:2] == tuple(size):
    return image
  kind = Image.Resampling.NEAREST if image.ndim == 2 else Image.Resampling.BICUBIC
  return np.asarray(Image.fromarray(image).resize((size[1], size[0]), kind))


def fit(image: np.ndarray, shorter_side: int) -> np.ndarray:
  """Scales an image or label map to a shorter side, keeping the aspect ratio; see `resize`.

  A shorter side of 0 means no scaling.
  """
  if not shorter_side:
    return image
  height, width = image.shape[:2]
  scale = shorter_side / min(height, width)
  return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes uint8 `[H, W, 3]` as PNG atomically."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'png')
  files.write_bytes(files.path(path), buffer.getvalue())


def write_video(path: str | os.PathLike, frames: Sequence[np.ndarray], seconds: float) -> None:
  """Writes frames, uint8 `[H, W, 3]` of one size, as animated WebP that repeats without end.

  Args:
    path: the file, which appears whole or not at all.
    frames: at least one.
    seconds: how long each is shown.
  """
  first, *others = map(Image.fromarray, frames)
  buffer = io.BytesIO()
  first.save(
    buffer, 'webp', save_all=True, append_images=others, duration=round(1000 * seconds), loop=0,
    quality=90,
  )  # fmt: skip
  files.write_bytes(files.path(path), buffer.getvalue())


def data_url(image: np.ndarray) -> str:
  """Encodes an image, uint8 `[H, W, 3]`, as a data URL (WebP) for an HTML page."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'webp', quality=90)
  return 'data:image/webp;base64,' + base64.b64encode(buffer.getvalue()).decode()
