"""Preprocessing of encoder inputs for the tasks of pSp, and conversion of inputs to images.

Uses uint8 arrays and Pillow, as the reference; deterministic for a given factor.
"""

import numpy as np
from PIL import Image

from step_jax.errors import DataError

# Reduction factors of super-resolution; training samples one per image.
FACTORS = (1, 2, 4, 8, 16, 32)
# Colours of CelebAMask-HQ's 19 classes: background, skin, nose, eye_g, l_eye, r_eye, l_brow,
# r_brow, l_ear, r_ear, mouth, u_lip, l_lip, hair, hat, ear_r, neck_l, neck, cloth.
PALETTE = np.array(
  [
    *([0, 0, 0], [204, 0, 0], [76, 153, 0], [204, 204, 0], [51, 51, 255]),
    *([204, 0, 204], [0, 255, 255], [255, 204, 204], [102, 51, 0], [255, 0, 0]),
    *([102, 204, 0], [255, 255, 0], [0, 0, 153], [0, 0, 204], [255, 51, 153]),
    *([0, 204, 204], [0, 51, 0], [255, 153, 51], [0, 204, 0]),
  ],
  np.uint8,
)


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Bilinear resizing, antialiased if smaller: uint8 `[H, W, 3]` or `[H, W] -> [size, size, …]`."""
  return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize_labels(labels: np.ndarray, size: int, interpolate: bool = False) -> np.ndarray:
  """Label map uint8 `[H, W] -> [size, size]`, by nearest neighbour.

  Args:
    labels: class of each pixel.
    size: side of the result.
    interpolate: interpolate class numbers bilinearly, as the reference does by default; this
      creates wrong classes along borders.
  """
  method = Image.Resampling.BILINEAR if interpolate else Image.Resampling.NEAREST
  return np.asarray(Image.fromarray(labels).resize((size, size), method))


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
  """Checks that all classes of a label map, `[H, W]`, are below `classes`.

  Raises:
    DataError: a class is not.
  """
  if labels.max(initial=0) >= classes:
    raise DataError(
      f'{where}: has the class {labels.max()}, but there are {classes} classes, numbered from 0: '
      'set data.classes to the number of classes, or correct the label map'
    )


def cubic_kernel(factor: int) -> np.ndarray:
  """Cubic low-pass filter (a = -0.5) for a reduction by an integer, `[4 * factor]`; sums to 1."""
  x = np.abs((np.arange(4 * factor) - 2 * factor + 0.5) / factor)
  inner = 1.5 * x**3 - 2.5 * x**2 + 1
  outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  kernel = np.where(x <= 1, inner, np.where(x < 2, outer, 0))
  return kernel / kernel.sum()


def reduce(image: np.ndarray, factor: int) -> np.ndarray:
  """Reduces an image by an integer factor with `cubic_kernel`, rows first.

  A factor of 1 shifts the image by half a pixel and blurs it, as in the reference.

  Args:
    image: uint8 `[H, W, 3]`.
    factor: at least 1.

  Returns:
    uint8 `[H // factor, W // factor, 3]`, truncated.
  """
  kernel = cubic_kernel(factor).astype(np.float32)
  before = 3 * factor // 2
  x = image.astype(np.float32) / np.float32(255)
  for axis in (0, 1):
    margin = [(0, 0)] * 3
    margin[axis] = (before, 3 * factor - before)
    padded = np.pad(x, margin, mode='reflect')
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=axis)
    x = windows[(slice(None),) * axis + (slice(None, None, factor),)] @ kernel
  return (np.clip(x, 0, 1) * np.float32(255)).astype(np.uint8)


def degrade(image: np.ndarray, factor: int) -> np.ndarray:
  """Input of super-resolution, uint8 `[H, H, 3]`: the image reduced and enlarged again."""
  return resize(reduce(image, factor), image.shape[0])


def colour_labels(labels: np.ndarray) -> np.ndarray:
  """Colours a label map `[..., H, W]` with `PALETTE`, to uint8 `[..., H, W, 3]`."""
  return PALETTE[labels % len(PALETTE)]
