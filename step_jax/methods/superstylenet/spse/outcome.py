"""What became of a region: it has a code, or the reason why it has none."""

import enum


class Outcome(enum.IntEnum):
  """Result of the extraction for one region; only `OK` comes with a code.

  The original writes a code of zeros in every other case and does not say so.
  """

  OK = 0
  # No pixel has the label.
  ABSENT = 1
  # All seeds are at one place, so that there is no distance between seeds: regions of one pixel.
  NO_STEP = 2
  # One or three superpixels: no cubic passes through as few points.
  TOO_FEW_SUPERPIXELS = 3

  @property
  def reason(self) -> str:
    """Why a region has no code, for messages; empty where it has one."""
    return {
      Outcome.OK: '',
      Outcome.ABSENT: 'no pixel has this label',
      Outcome.NO_STEP: 'the region is a single pixel',
      Outcome.TOO_FEW_SUPERPIXELS: 'the region has too few superpixels for a code',
    }[self]
