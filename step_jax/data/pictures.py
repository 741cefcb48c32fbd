"""Picture files of every common kind to plain RGB."""

import base64
import io
import pathlib

import numpy as np
from PIL import Image, ImageOps

from step_jax.errors import DataError

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp')


def read_picture(path: str | pathlib.Path) -> np.ndarray:
  """Reads a png, jpg or webp file as uint8 RGB `[H, W, 3]`.

  Grey, palette, CMYK and 16-bit pictures are converted, transparent ones are laid on white, and the
  rotation that a camera noted (EXIF) is applied.

  Raises:
    DataError: the file is missing, truncated, or no picture.
  """
  try:
    with Image.open(path) as image:
      return _to_rgb(ImageOps.exif_transpose(image))
  except FileNotFoundError:
    raise DataError(f'{path}: no such picture') from None
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
    raise DataError(
      f'{path}: cannot be read as a picture ({str(error).splitlines()[0]}): replace or remove it'
    ) from None


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
  """Resizes uint8 `[H, W, 3]` to `size = (height, width)`, bicubic, antialiased when it shrinks."""
  if image.shape[:2] == tuple(size):
    return image
  return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def write_png(path: str | pathlib.Path, image: np.ndarray) -> None:
  """Writes uint8 `[H, W, 3]` as PNG; the file appears whole or not at all."""
  path = pathlib.Path(path)
  part = path.with_name(f'.{path.name}.part')
  Image.fromarray(image).save(part, 'png')
  part.replace(path)


def data_url(image: np.ndarray) -> str:
  """uint8 `[H, W, 3]` as the address of a picture that stands in the page itself (WebP)."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'webp', quality=90)
  return 'data:image/webp;base64,' + base64.b64encode(buffer.getvalue()).decode()
