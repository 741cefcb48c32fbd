"""Random views of a training example; pictures of one example always share the view."""

from collections.abc import Mapping, Sequence

import numpy as np

from step_jax.data import pictures

Images = Mapping[str, np.ndarray]


def augment(
  images: Images,
  rng: np.random.Generator,
  crop: tuple[int, int],
  rescale: Sequence[tuple[float, float]] = (),
  flip: bool = False,
) -> dict[str, np.ndarray]:
  """A random view of pictures of one size: rescaled, cropped, perhaps mirrored, all alike.

  Args:
    images: uint8 `[H, W, 3]` each, at least `crop` large.
    rng: draws the view.
    crop: height and width of the result.
    rescale: `(probability, factor)` pairs; with what probability is left, the size stays. StEP's
      rule for facades is `((0.5, 1.25), (0.25, 1.5))`.
    flip: whether to mirror left and right with probability one half.
  """
  factor = _draw_factor(rng, rescale)
  if factor != 1.0:
    images = {name: _scale(image, factor) for name, image in images.items()}
  height, width = next(iter(images.values())).shape[:2]
  top = rng.integers(height - crop[0] + 1)
  left = rng.integers(width - crop[1] + 1)
  images = {
    name: image[top : top + crop[0], left : left + crop[1]] for name, image in images.items()
  }
  if flip and rng.random() < 0.5:
    images = {name: image[:, ::-1] for name, image in images.items()}
  return images


def center_crop(image: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
  """The middle `crop = (height, width)` of `[H, W, 3]`; a picture smaller than that stays whole."""
  top, left = (max(0, (side - size) // 2) for side, size in zip(image.shape, crop, strict=False))
  return image[top : top + crop[0], left : left + crop[1]]


def _draw_factor(rng: np.random.Generator, rescale: Sequence[tuple[float, float]]) -> float:
  coin = rng.random()
  for probability, factor in rescale:
    if coin < probability:
      return factor
    coin -= probability
  return 1.0


def _scale(image: np.ndarray, factor: float) -> np.ndarray:
  return pictures.resize(image, (round(image.shape[0] * factor), round(image.shape[1] * factor)))
