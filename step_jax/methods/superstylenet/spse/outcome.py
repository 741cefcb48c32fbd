"""Result of the extraction for a region: a code, or the reason why it has none."""

import enum


class Outcome(enum.IntEnum):
  """Result of the extraction for one region; only `OK` has a code.

  In all other cases, the original writes a code of zeros without a message.
  """

  OK = 0
  # No pixel has the label.
  ABSENT = 1
  # The distance between seeds is zero: regions of one pixel.
  NO_STEP = 2
  # One or three superpixels, too few points for a cubic.
  TOO_FEW_SUPERPIXELS = 3

  @property
  def reason(self) -> str:
    """Why a region has no code, for messages; empty if it has one."""
    return {
      Outcome.OK: '',
      Outcome.ABSENT: 'no pixel has this label',
      Outcome.NO_STEP: 'the region is a single pixel',
      Outcome.TOO_FEW_SUPERPIXELS: 'the region has too few superpixels for a code',
    }[self]
