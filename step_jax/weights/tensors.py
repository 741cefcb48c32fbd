"""A tensor in a file that has not been read yet, as returned by readers and used by layouts."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
  """Shape of a stored array, and how to read it.

  Names and shapes are checked before anything is read, so wrong headers, and the 400 MB of an
  unused classifier, need no memory.

  Attributes:
    shape: shape in the file.
    read: returns the array; may raise any exception, which `convert` turns into one line.
  """

  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]
