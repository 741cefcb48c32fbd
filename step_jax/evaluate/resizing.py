"""Resizes images as the definition of a metric requires.

The resizing method is part of a metric: Parmar et al. 2022 show that it can change FID by more than
the difference between methods. Both functions are antialiased (Pillow's filters widen with the
scale), and change the aspect ratio of images that are not square, like the originals.
"""

import numpy as np
from PIL import Image

from step_jax.models.inception import SIZE as INCEPTION_SIZE

LPIPS_SIZE = 256


def resize_for_inception(picture: np.ndarray, size: int = INCEPTION_SIZE) -> np.ndarray:
  """clean-fid's resize: bicubic, each channel in float32, neither rounded nor clipped.

  Args:
    picture: RGB `[H, W, 3]` in 0..255, uint8 or float.
    size: height and width of the result; networks other than Inception need other sizes.

  Returns:
    float32 `[size, size, 3]`. The bicubic filter overshoots, so values near edges can be outside
    0..255. Images that already have this size are not changed.

  Raises:
    ValueError: the image does not have three channels.
  """
  _check(picture)
  channels = [
    Image.fromarray(np.ascontiguousarray(picture[..., c], np.float32)).resize(
      (size, size), Image.Resampling.BICUBIC
    )
    for c in range(3)
  ]
  return np.stack(channels, axis=-1)


def resize_for_lpips(picture: np.ndarray, size: int = LPIPS_SIZE) -> np.ndarray:
  """StEP's resize before LPIPS and perceptual distance: Pillow's bicubic, rounded to uint8.

  The released code of StEP uses Pillow's default filter, which is bicubic since version 7 (before
  that, nearest neighbour). It resizes input, output and target as one strip, which mixes pixels at
  the seams; here, each image is resized separately. BicycleGAN does not resize its 256 px outputs;
  images of that size are not changed here either.

  Args:
    picture: RGB uint8 `[H, W, 3]`.
    size: height and width of the result.

  Returns:
    uint8 `[size, size, 3]`.

  Raises:
    ValueError: the image is not uint8, or does not have three channels.
  """
  _check(picture)
  if picture.dtype != np.uint8:
    raise ValueError(f'LPIPS is measured on pictures as they are saved, uint8, not {picture.dtype}')
  return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def _check(picture: np.ndarray) -> None:
  if picture.ndim != 3 or picture.shape[-1] != 3:
    raise ValueError(f'a picture is [H, W, 3], not {list(picture.shape)}')
