"""Random views of a training example, the same for its images and label maps."""

from collections.abc import Mapping, Sequence

import numpy as np

from step_jax.data import pictures

Arrays = Mapping[str, np.ndarray]


def augment(
  example: Arrays,
  rng: np.random.Generator,
  crop: tuple[int, int],
  rescale: Sequence[tuple[float, float]] = (),
  flip: bool = False,
  mirror: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Rescales, crops and mirrors all images and label maps of an example in the same way.

  Args:
    example: images, uint8 `[H, W, 3]`, and label maps, uint8 `[H, W]`, of one size, at least as
      large as `crop`. Arrays of other types are returned unchanged, except that rows of arrays
      with one row per class are swapped according to `mirror`.
    rng: random generator.
    crop: height and width of the result.
    rescale: `(probability, factor)` pairs; otherwise the size stays. StEP's rule for facades is
      `((0.5, 1.25), (0.25, 1.5))`.
    flip: whether to mirror left and right with probability 0.5.
    mirror: class -> class of a mirrored pixel, see `labels.Labels.mirror`; None: no change.
  """
  images = {name: array for name, array in example.items() if array.dtype == np.uint8}
  factor = _draw_factor(rng, rescale)
  if factor != 1.0:
    images = {name: _scale(image, factor) for name, image in images.items()}
  height, width = next(iter(images.values())).shape[:2]
  top = rng.integers(height - crop[0] + 1)
  left = rng.integers(width - crop[1] + 1)
  images = {
    name: image[top : top + crop[0], left : left + crop[1]] for name, image in images.items()
  }
  others = {name: array for name, array in example.items() if name not in images}
  if flip and rng.random() < 0.5:
    images = {name: image[:, ::-1] for name, image in images.items()}
    if mirror is not None:
      images = {name: mirror[x] if x.ndim == 2 else x for name, x in images.items()}
      per_class = {name for name, x in others.items() if x.shape[:1] == mirror.shape}
      others |= {name: others[name][mirror] for name in per_class}
  return {**example, **images, **others}


def center_crop(image: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
  """Center crop, `(height, width)`, of `[H, W, …]`; smaller images are returned unchanged."""
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
