"""Triplets of images: an anchor, a positive that is close in style, and a negative that is far."""

from collections.abc import Callable, Sequence

import numpy as np

from step_jax.data import augment

ROLES = ('anchor', 'positive', 'negative')


def loader(
  split: Sequence[dict],
  side: str,
  nearest: np.ndarray,
  farthest: np.ndarray,
  crop: tuple[int, int],
) -> Callable[[int, np.random.Generator], dict[str, np.ndarray]]:
  """Creates a function from the index of an anchor to a triplet.

  Args:
    split: random access to examples.
    side: side of the examples to use.
    nearest: int `[N, k]`; the positive is sampled uniformly from the row of the anchor.
    farthest: int `[N, m]`; the negative is sampled in the same way.
    crop: height and width; images are cropped at independent positions.

  Returns:
    `(index, rng) -> {'anchor', 'positive', 'negative'}`, uint8 `[*crop, 3]` each.
  """

  def load(index, rng):
    chosen = (index, rng.choice(nearest[index]), rng.choice(farthest[index]))
    pictures = (split[int(i)][side] for i in chosen)
    return {
      role: augment.augment({role: picture}, rng, crop)[role]
      for role, picture in zip(ROLES, pictures, strict=True)
    }

  return load
