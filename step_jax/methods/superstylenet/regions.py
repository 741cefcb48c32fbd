"""Regions whose codes come from other images, as commands name them; imports no JAX."""

import argparse
import re
from typing import NamedTuple


class Region(NamedTuple):
  """A region whose code comes from another image: `LABEL=IMAGE:LABELS` or `LABEL=CODES.npy`.

  Attributes:
    label: whose code is replaced.
    image: path of the image, or of a file of codes.
    labels: path of the image's label map; empty for codes.
    share: how much of the new code is taken, 1 for all.
  """

  label: int
  image: str
  labels: str
  share: float = 1.0


def parse(text: str) -> Region:
  """Reads `LABEL=IMAGE:LABELS`, `LABEL=CODES.npy`, each perhaps with `@SHARE` at its end.

  Raises:
    argparse.ArgumentTypeError: it is none of these.
  """
  match = re.fullmatch(r'(\d+)=(?:(.+):(.+?)|(.+\.npy))(?:@([\d.]+))?', text)
  try:
    label, image, labels, codes, share = match.groups()
    return Region(int(label), image or codes, labels or '', float(share or 1))
  except (AttributeError, ValueError):
    raise argparse.ArgumentTypeError(
      f'{text!r} is not LABEL=IMAGE:LABELS or LABEL=CODES.npy, with @SHARE to blend'
    ) from None
