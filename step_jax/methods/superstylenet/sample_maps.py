"""Synthetic label maps and images for benchmarks and tests of the extraction of codes.

`face` has large connected regions with small ones inside, like a portrait. In `street`, each label
is scattered over the whole image. This is the most expensive case, because the bounding box of each
region is the whole image.
"""

import numpy as np

NUM_LABELS = 19

# Ellipses of a face in drawing order: label, centre (row, column) and radii, in image heights.
_FACE = (
  (13, 0.40, 0.50, 0.36, 0.33),  # hair
  (18, 1.02, 0.50, 0.20, 0.46),  # cloth
  (17, 0.80, 0.50, 0.16, 0.13),  # neck
  (16, 0.90, 0.50, 0.015, 0.10),  # necklace
  (8, 0.50, 0.26, 0.07, 0.035),  # ears
  (9, 0.50, 0.74, 0.07, 0.035),
  (15, 0.585, 0.26, 0.018, 0.012),  # earring
  (1, 0.50, 0.50, 0.28, 0.22),  # skin
  (14, 0.16, 0.50, 0.10, 0.24),  # hat
  (3, 0.445, 0.50, 0.045, 0.185),  # glasses
  (4, 0.445, 0.41, 0.020, 0.045),  # eyes
  (5, 0.445, 0.59, 0.020, 0.045),
  (6, 0.375, 0.41, 0.014, 0.065),  # brows
  (7, 0.375, 0.59, 0.014, 0.065),
  (2, 0.535, 0.50, 0.070, 0.038),  # nose
  (11, 0.640, 0.50, 0.020, 0.075),  # upper lip
  (12, 0.685, 0.50, 0.024, 0.065),  # lower lip
  (10, 0.660, 0.50, 0.012, 0.055),  # mouth
)


def face(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """A face-like map of all 19 labels of CelebAMask-HQ.

  Args:
    size: side in pixels; at 64 and above, each label has pixels.
    seed: random seed of the sizes, positions and colours.

  Returns:
    Image, uint8 `[size, size, 3]`, and label map, uint8 `[size, size]`.
  """
  random = np.random.default_rng(seed)
  row, column = (np.indices((size, size)) + 0.5) / size
  labels = np.zeros((size, size), np.uint8)
  shift = random.normal(0, 0.01, 2)
  for label, *place in _FACE:
    y, x = place[:2] + shift
    height, width = np.multiply(place[2:], random.uniform(0.95, 1.05, 2))
    labels[((row - y) / height) ** 2 + ((column - x) / width) ** 2 <= 1] = label
  return _coloured(labels, random), labels


def street(size: int, seed: int, patches: int = 600) -> tuple[np.ndarray, np.ndarray]:
  """A map of 19 labels with many patches each, scattered over the image.

  Args:
    size: side in pixels.
    seed: random seed of the positions, labels and colours of the patches.
    patches: number of cells of a Voronoi diagram, about `patches / 19` per label.

  Returns:
    Image, uint8 `[size, size, 3]`, and label map, uint8 `[size, size]`.
  """
  random = np.random.default_rng(seed)
  centres = random.uniform(0, size, (patches, 2)).astype(np.float32)
  owners = random.permutation(np.arange(patches) % NUM_LABELS).astype(np.uint8)
  column = np.arange(size, dtype=np.float32)
  labels = np.empty((size, size), np.uint8)
  for row in range(size):
    squared = (centres[:, :1] - row) ** 2 + (centres[:, 1:] - column) ** 2
    labels[row] = owners[np.argmin(squared, axis=0)]
  return _coloured(labels, random), labels


def _coloured(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """A colour for each label, with soft shadows and noise: uint8 `[size, size, 3]`."""
  size = len(labels)
  palette = random.uniform(40, 215, (NUM_LABELS, 3))
  y, x = np.indices(labels.shape) / size
  shadows = sum(
    random.normal(0, 12) * np.sin(2 * np.pi * (a * y + b * x) + random.uniform(0, 6))
    for a, b in random.uniform(-6, 6, (8, 2))
  )
  image = palette[labels] + shadows[..., None] + random.normal(0, 6, (*labels.shape, 3))
  return np.clip(image, 0, 255).astype(np.uint8)
