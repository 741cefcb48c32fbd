"""Alignment of faces as in FFHQ, from landmarks that are given (Karras et al. 2019, appendix C).

Finding landmarks is left to others: any detector of the 68 points of iBUG 300-W will do.
"""

import math

import numpy as np
from PIL import Image, ImageFilter

SIZE = 256
_POINTS = 68
_LEFT_EYE, _RIGHT_EYE, _MOUTH = slice(36, 42), slice(42, 48), (48, 54)
# Of the side of the square: margin that is kept around it, and deviation of the blur.
_MARGIN, _BLUR = 0.1, 0.02


def face_square(landmarks: np.ndarray) -> np.ndarray:
  """The square around a face that alignment cuts out, which is turned as the face is.

  Args:
    landmarks: `[68, 2]`, x and y in px, in the order of iBUG 300-W.

  Returns:
    `[4, 2]`: upper left, lower left, lower right and upper right corner, x and y.

  Raises:
    ValueError: there are not 68 finite points, or eyes and mouth coincide.
  """
  landmarks = np.asarray(landmarks, np.float64)
  if landmarks.shape != (_POINTS, 2) or not np.isfinite(landmarks).all():
    raise ValueError(f'alignment takes {_POINTS} landmarks [68, 2], not {list(landmarks.shape)}')
  left, right = landmarks[_LEFT_EYE].mean(axis=0), landmarks[_RIGHT_EYE].mean(axis=0)
  eyes, between = (left + right) / 2, right - left
  down = landmarks[list(_MOUTH)].mean(axis=0) - eyes
  # Across the face, by the eyes and by the mouth, half a side long.
  across = between + (down[1], -down[0])
  length = np.linalg.norm(across)
  if not length:
    raise ValueError('alignment needs landmarks of a face: eyes and mouth coincide')
  across *= max(2 * np.linalg.norm(between), 1.8 * np.linalg.norm(down)) / length
  along = np.array([-across[1], across[0]])
  center = eyes + 0.1 * down
  return np.stack(
    [
      center - across - along,
      center - across + along,
      center + across + along,
      center + across - along,
    ]
  )


def align(picture: np.ndarray, landmarks: np.ndarray, size: int = SIZE) -> np.ndarray:
  """Cuts out a face, upright: what the encoders of faces are trained on.

  What lies beyond the image is its reflection, blurred.

  Args:
    picture: uint8 `[H, W, 3]`.
    landmarks: `[68, 2]`, see `face_square`.
    size: side of the result, px.

  Returns:
    uint8 `[size, size, 3]`.

  Raises:
    ValueError: as `face_square`, or the face is far larger than the image.
  """
  corners = face_square(landmarks)
  side = np.linalg.norm(corners[3] - corners[0])
  image = Image.fromarray(picture)
  if (shrink := int(side / size / 2)) > 1:
    small = [max(1, round(length / shrink)) for length in image.size]
    image = image.resize(small, Image.Resampling.LANCZOS)
    corners, side = corners / shrink, side / shrink
  margin = max(3, round(side * _MARGIN))
  low = np.floor(corners.min(axis=0)).astype(int) - margin
  high = np.ceil(corners.max(axis=0)).astype(int) + margin
  start, stop = np.maximum(low, 0), np.minimum(high, image.size)
  if (stop - start < 2).any():
    raise ValueError('the face lies outside of the image')
  image = image.crop((*start, *stop))
  before, after = start - low, high - stop
  if before.any() or after.any():
    image = _extend(image, before, after, float(side * _BLUR))
  corners = (corners - low + 0.5).flatten()
  method = Image.Transform.QUAD, tuple(corners), Image.Resampling.BILINEAR
  return np.asarray(image.transform((size, size), *method))


def _extend(image: Image.Image, before: np.ndarray, after: np.ndarray, blur: float) -> Image.Image:
  """Pads by reflection, more and more blurred away from the image.

  Args:
    image: the known part.
    before, after: px on the sides, x and y.
    blur: deviation of the blur, px.
  """
  pads = ((before[1], after[1]), (before[0], after[0]))
  padded = np.pad(np.asarray(image), (*pads, (0, 0)), mode='reflect')
  blurred = Image.fromarray(padded).filter(ImageFilter.GaussianBlur(blur))
  # 0 in the image, and 1 from three deviations off it.
  far = [
    np.maximum(pad[0] - np.arange(n), np.arange(n) - (n - 1 - pad[1])).clip(0)
    for pad, n in zip(pads, padded.shape, strict=False)
  ]
  weight = np.clip(np.maximum(far[0][:, None], far[1]) / math.ceil(3 * blur), 0, 1)[..., None]
  mixed = padded + weight * (np.asarray(blurred, np.float64) - padded)
  return Image.fromarray(np.rint(mixed).astype(np.uint8))
