"""The choices that a user of the page has made."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from step_jax.methods.step.page import codes

FIRST, SECOND = 'First style', 'Second style'


@dataclasses.dataclass(frozen=True)
class Choice:
  """An input, two styles and the current style.

  Attributes:
    source: the input, uint8 `[H, W, 3]`; None if there is none yet.
    first: first style code `[Z]`.
    second: second style code `[Z]`.
    code: current style code `[Z]`: one of the two, a blend, or set with the sliders.
    drawn: the styles that were sampled last, `[n, Z]`.
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
    """Initial choice, in which the first of two styles is the current one."""
    return cls(source, first, second, code=first)

  def with_style(self, which: str, code: np.ndarray) -> 'Choice':
    """Sets the `FIRST` or the `SECOND` style to a code `[Z]` and makes it the current one."""
    if which == FIRST:
      return dataclasses.replace(self, first=code, code=code)
    return dataclasses.replace(self, second=code, code=code)

  def blended(self, t: float) -> 'Choice':
    """Makes a blend the current style: the first style at t = 0, the second at t = 1."""
    return dataclasses.replace(self, code=codes.blend(self.first, self.second, t))


def blend_of(which: str) -> float:
  """Position of the blend slider when one of the two styles is the current one."""
  return 0.0 if which == FIRST else 1.0
