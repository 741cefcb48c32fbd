"""What a user of the page has chosen so far."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from step_jax.methods.step.page import codes

FIRST, SECOND = 'First style', 'Second style'


@dataclasses.dataclass(frozen=True)
class Choice:
  """An input, two styles and the style in use.

  Attributes:
    source: the input, uint8 `[H, W, 3]`; None before there is one.
    first: a style code `[Z]`.
    second: another one.
    code: the style in use: one of them, between them, or moved by hand.
    drawn: the styles that were drawn last, `[n, Z]`.
    drawn_pictures: the input in these styles, uint8 `[H, W, 3]` each.
  """

  source: np.ndarray | None
  first: np.ndarray
  second: np.ndarray
  code: np.ndarray
  drawn: Sequence[np.ndarray] = ()
  drawn_pictures: Sequence[np.ndarray] = ()

  @classmethod
  def of(cls, source: np.ndarray | None, first: np.ndarray, second: np.ndarray) -> 'Choice':
    """The choice to begin with: the first of two styles is in use."""
    return cls(source, first, second, code=first)

  def with_style(self, which: str, code: np.ndarray) -> 'Choice':
    """With a code `[Z]` as the `FIRST` or the `SECOND` style, and in use."""
    if which == FIRST:
      return dataclasses.replace(self, first=code, code=code)
    return dataclasses.replace(self, second=code, code=code)

  def blended(self, t: float) -> 'Choice':
    """With the style between the two in use: the first at t = 0, the second at t = 1."""
    return dataclasses.replace(self, code=codes.blend(self.first, self.second, t))


def blend_of(which: str) -> float:
  """Where the slider between the two styles stands when one of them is in use."""
  return 0.0 if which == FIRST else 1.0
