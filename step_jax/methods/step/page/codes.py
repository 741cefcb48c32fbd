"""Style codes by hand: between two of them, along one dimension, and where each lies on a map."""

import dataclasses
from typing import Any

import numpy as np

# By how much of their spread sliders reach beyond the codes of the run.
_BEYOND = 0.1
# Left free along the borders of a map, in parts of its side.
_MARGIN = 0.06
# Decimals that a slider shows.
_DECIMALS = 2


def blend(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
  """The style between `a` and `b`, `[Z]` each: `a` at t = 0, `b` at t = 1."""
  return (1 - t) * a + t * b


def farthest(codes: np.ndarray, index: int) -> int:
  """Which of `codes` `[N, Z]` is the farthest from one of them."""
  return int(np.linalg.norm(codes - codes[index], axis=1).argmax())


@dataclasses.dataclass(frozen=True)
class Sliders:
  """One slider a dimension of a code, and the code that they stand for.

  A slider has a range and shows two decimals, a code has neither: a dimension changes only when its
  slider is moved.

  Attributes:
    low: `[Z]`.
    high: `[Z]`, above `low`.
  """

  low: np.ndarray
  high: np.ndarray

  @classmethod
  def of(cls, codes: np.ndarray) -> 'Sliders':
    """Ranges that hold all `codes` `[N, Z]` and a little more."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    # Where all codes are the same there is still something to try.
    beyond = np.where(high > low, _BEYOND * (high - low), 1.0)
    # In float64, in which two decimals are two decimals.
    scale = np.float64(10**_DECIMALS)
    return cls(np.floor((low - beyond) * scale) / scale, np.ceil((high + beyond) * scale) / scale)

  def values(self, code: np.ndarray) -> list[float]:
    """What the sliders show for a code `[Z]`."""
    within = np.clip(code, self.low, self.high).astype(np.float64)
    return [round(float(value), _DECIMALS) for value in within]

  def moved(self, code: np.ndarray, values: list[float]) -> np.ndarray:
    """The code `[Z]` after the sliders, which showed `code`, were moved to `values`."""
    before = np.array(self.values(code))
    touched = np.abs(before - values) > 0.5 * 10**-_DECIMALS
    return np.where(touched, values, code).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class StyleMap:
  """Codes on a square, by their two principal components, to one scale.

  Places are `(x, y)` in [0, 1], from the left and from the top.

  Attributes:
    points: places of the codes that it was made of, float `[N, 2]`.
    share: how much of the codes' variance the map shows, in [0, 1].
  """

  points: np.ndarray
  share: float
  _pca: Any
  _middle: np.ndarray
  _span: float

  @classmethod
  def of(cls, codes: np.ndarray) -> 'StyleMap':
    """The map of `codes` `[N, Z]`; N is 2 at least."""
    from sklearn import decomposition

    pca = decomposition.PCA(min(2, *codes.shape), svd_solver='full')
    with np.errstate(invalid='ignore'):  # Codes that are all the same have no shares of variance.
      pca.fit(codes)
    flat = _two(pca.transform(codes))
    middle = (flat.max(axis=0) + flat.min(axis=0)) / 2
    span = float(np.ptp(flat, axis=0).max()) or 1.0
    share = float(pca.explained_variance_.sum() / max(codes.var(axis=0, ddof=1).sum(), 1e-12))
    empty = cls(np.empty((0, 2)), share, pca, middle, span)
    return dataclasses.replace(empty, points=empty.place(codes))

  def place(self, codes: np.ndarray) -> np.ndarray:
    """Where codes `[N, Z]` lie: `[N, 2]`; codes unlike those of the map may lie outside."""
    flat = (_two(self._pca.transform(codes)) - self._middle) / self._span
    return 0.5 + (1 - 2 * _MARGIN) * flat * [1, -1]

  def nearest(self, x: float, y: float) -> int:
    """The point next to a place."""
    return int(np.linalg.norm(self.points - [x, y], axis=1).argmin())


def _two(flat: np.ndarray) -> np.ndarray:
  """`[N, 1 or 2]` as `[N, 2]`: codes of one dimension lie on a line."""
  return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
