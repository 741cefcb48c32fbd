"""Pictures at the size that a metric is defined for, by the one resizer that it is defined with.

The resizer is part of a metric: Parmar et al. 2022 show FID to change by more than methods differ
when it does. Both of these average over all pixels that fall into a new one (Pillow's filters widen
with the scale), and change the aspect of pictures that are not square, as the originals do.
"""

import numpy as np
from PIL import Image

from step_jax.models.inception import SIZE as INCEPTION_SIZE

LPIPS_SIZE = 256


def resize_for_inception(picture: np.ndarray, size: int = INCEPTION_SIZE) -> np.ndarray:
  """clean-fid's resize: bicubic, each channel in float32, neither rounded nor clipped.

  Args:
    picture: RGB `[H, W, 3]` in 0..255, uint8 or float.
    size: height and width of the result; other nets than Inception take others.

  Returns:
    float32 `[size, size, 3]`; a bicubic filter overshoots, so somewhat outside of 0..255 near
    edges. A picture of that size already keeps its values.

  Raises:
    ValueError: it is no picture of three channels.
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

  The released code of StEP asks Pillow for its default, which is bicubic since version 7 (before
  that, the nearest pixel). It resizes input, output and truth as one strip, whose seams bleed into
  one another; here each picture is resized alone. BicycleGAN measures its 256 px outputs as they
  are, and pictures of that size are returned as they are here, too.

  Args:
    picture: RGB uint8 `[H, W, 3]`.
    size: height and width of the result.

  Returns:
    uint8 `[size, size, 3]`.

  Raises:
    ValueError: it is no uint8 picture of three channels.
  """
  _check(picture)
  if picture.dtype != np.uint8:
    raise ValueError(f'LPIPS is measured on pictures as they are saved, uint8, not {picture.dtype}')
  return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def _check(picture: np.ndarray) -> None:
  if picture.ndim != 3 or picture.shape[-1] != 3:
    raise ValueError(f'a picture is [H, W, 3], not {list(picture.shape)}')
