"""Alignment of faces as in FFHQ, from given landmarks (Karras et al. 2019, appendix C).

Landmarks come from any detector of the 68 points of iBUG 300-W; this package has none.
"""

import math

import numpy as np
from PIL import Image, ImageFilter

SIZE = 256
_POINTS = 68
_LEFT_EYE, _RIGHT_EYE, _MOUTH = slice(36, 42), slice(42, 48), (48, 54)
# Margin around the square, and standard deviation of the blur, relative to the side of the square.
_MARGIN, _BLUR = 0.1, 0.02


def face_square(landmarks: np.ndarray) -> np.ndarray:
  """The rotated square around a face that alignment crops.

  Args:
    landmarks: `[68, 2]`, x and y in px, in the order of iBUG 300-W.

  Returns:
    `[4, 2]`: x and y of the upper left, lower left, lower right and upper right corner.

  Raises:
    ValueError: there are not exactly 68 finite points, or eyes and mouth coincide.
  """
  landmarks = np.asarray(landmarks, np.float64)
  if landmarks.shape != (_POINTS, 2) or not np.isfinite(landmarks).all():
    raise ValueError(f'alignment takes {_POINTS} landmarks [68, 2], not {list(landmarks.shape)}')
  left, right = landmarks[_LEFT_EYE].mean(axis=0), landmarks[_RIGHT_EYE].mean(axis=0)
  eyes, between = (left + right) / 2, right - left
  down = landmarks[list(_MOUTH)].mean(axis=0) - eyes
  # Vector across the face, from eyes and mouth; its length is half a side.
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
  """Crops and rotates a face upright, as in the training images of face encoders.

  Outside of the image, its reflection is used and blurred.

  Args:
    picture: uint8 `[H, W, 3]`.
    landmarks: `[68, 2]`, see `face_square`.
    size: side of the result, px.

  Returns:
    uint8 `[size, size, 3]`.

  Raises:
    ValueError: see `face_square`; or the face is outside of the image.
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
  """Pads by reflection, with a blur that increases with the distance from the image.

  Args:
    image: image to pad.
    before, after: px on each side, x and y.
    blur: standard deviation of the blur, px.
  """
  pads = ((before[1], after[1]), (before[0], after[0]))
  padded = np.pad(np.asarray(image), (*pads, (0, 0)), mode='reflect')
  blurred = Image.fromarray(padded).filter(ImageFilter.GaussianBlur(blur))
  # Weight of the blurred image: 0 inside, 1 from a distance of three standard deviations on.
  far = [
    np.maximum(pad[0] - np.arange(n), np.arange(n) - (n - 1 - pad[1])).clip(0)
    for pad, n in zip(pads, padded.shape, strict=False)
  ]
  weight = np.clip(np.maximum(far[0][:, None], far[1]) / math.ceil(3 * blur), 0, 1)[..., None]
  mixed = padded + weight * (np.asarray(blurred, np.float64) - padded)
  return Image.fromarray(np.rint(mixed).astype(np.uint8))
