"""Triplets of pictures: an anchor, one that is near to it in style, one that is far."""

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
  """A function from the number of an anchor to its triplet.

  Args:
    split: random access to examples.
    side: which of their pictures.
    nearest: int `[N, k]`; the positive is one of the row's, all equally likely.
    farthest: int `[N, m]`; likewise the negative.
    crop: height and width; every picture is cropped at a place of its own.

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
