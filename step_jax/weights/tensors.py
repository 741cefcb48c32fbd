"""A tensor of a file that was not yet read: what every reader returns and every layout looks at."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
  """Shape of a stored array, and how to read it.

  Names and shapes are checked before anything is read, so a header that promises too much, or the
  400 MB of a classifier that nobody needs, cost no memory.

  Attributes:
    shape: as in the file.
    read: returns the array; may raise anything, which `convert` turns into one line.
  """

  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]
