"""Command-line syntax for regions with codes from other images; imports no JAX."""

import argparse
import re
from typing import NamedTuple


class Region(NamedTuple):
  """A region with a code from another image: `LABEL=IMAGE:LABELS` or `LABEL=CODES.npy`.

  Attributes:
    label: label whose code is replaced.
    image: path of the image, or of a file with codes.
    labels: path of the label map of the image; empty for codes.
    share: weight of the new code; 1 replaces the old one.
  """

  label: int
  image: str
  labels: str
  share: float = 1.0


def parse(text: str) -> Region:
  """Parses `LABEL=IMAGE:LABELS` or `LABEL=CODES.npy`, optionally followed by `@SHARE`.

  Raises:
    argparse.ArgumentTypeError: the text has another form.
  """
  match = re.fullmatch(r'(\d+)=(?:(.+):(.+?)|(.+\.npy))(?:@([\d.]+))?', text)
  try:
    label, image, labels, codes, share = match.groups()
    return Region(int(label), image or codes, labels or '', float(share or 1))
  except (AttributeError, ValueError):
    raise argparse.ArgumentTypeError(
      f'{text!r} is not LABEL=IMAGE:LABELS or LABEL=CODES.npy, with @SHARE to blend'
    ) from None
