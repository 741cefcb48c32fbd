"""Edits style codes: blends, sliders for single dimensions, and a map of styles."""

import dataclasses
from typing import Any

import numpy as np

# How far sliders extend beyond the codes of the run, as a fraction of their range.
_BEYOND = 0.1
# Margin of a map, as a fraction of its side.
_MARGIN = 0.06
# Decimals that a slider shows.
_DECIMALS = 2


def blend(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
  """The style between `a` and `b`, `[Z]` each: `a` at t = 0, `b` at t = 1."""
  return (1 - t) * a + t * b


def farthest(codes: np.ndarray, index: int) -> int:
  """Index of the code that is farthest from `codes[index]`; `codes` are `[N, Z]`."""
  return int(np.linalg.norm(codes - codes[index], axis=1).argmax())


@dataclasses.dataclass(frozen=True)
class Sliders:
  """One slider per dimension of a code.

  Sliders have a range and show two decimals; codes are not limited to either. A dimension changes
  only when its slider moves.

  Attributes:
    low: `[Z]`.
    high: `[Z]`, above `low`.
  """

  low: np.ndarray
  high: np.ndarray

  @classmethod
  def of(cls, codes: np.ndarray) -> 'Sliders':
    """Ranges that include all `codes` `[N, Z]` and a margin."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    # A range of positive length even if all codes are the same.
    beyond = np.where(high > low, _BEYOND * (high - low), 1.0)
    # float64, so that rounding to two decimals is exact enough.
    scale = np.float64(10**_DECIMALS)
    return cls(np.floor((low - beyond) * scale) / scale, np.ceil((high + beyond) * scale) / scale)

  def values(self, code: np.ndarray) -> list[float]:
    """Positions of the sliders for a code `[Z]`."""
    within = np.clip(code, self.low, self.high).astype(np.float64)
    return [round(float(value), _DECIMALS) for value in within]

  def moved(self, code: np.ndarray, values: list[float]) -> np.ndarray:
    """The code `[Z]` after the sliders moved from the positions for `code` to `values`."""
    before = np.array(self.values(code))
    touched = np.abs(before - values) > 0.5 * 10**-_DECIMALS
    return np.where(touched, values, code).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class StyleMap:
  """A square map of codes along their first two principal components, which share one scale.

  Positions are `(x, y)` in [0, 1], from the left and from the top.

  Attributes:
    points: positions of the codes that the map was fitted to, float `[N, 2]`.
    share: fraction of the variance of the codes that the map shows, in [0, 1].
  """

  points: np.ndarray
  share: float
  _pca: Any
  _middle: np.ndarray
  _span: float

  @classmethod
  def of(cls, codes: np.ndarray) -> 'StyleMap':
    """Fits a map to `codes` `[N, Z]`; N must be at least 2."""
    from sklearn import decomposition

    pca = decomposition.PCA(min(2, *codes.shape), svd_solver='full')
    with np.errstate(
      invalid='ignore'
    ):  # If all codes are the same, ratios of variances are undefined.
      pca.fit(codes)
    flat = _two(pca.transform(codes))
    middle = (flat.max(axis=0) + flat.min(axis=0)) / 2
    span = float(np.ptp(flat, axis=0).max()) or 1.0
    share = float(pca.explained_variance_.sum() / max(codes.var(axis=0, ddof=1).sum(), 1e-12))
    empty = cls(np.empty((0, 2)), share, pca, middle, span)
    return dataclasses.replace(empty, points=empty.place(codes))

  def place(self, codes: np.ndarray) -> np.ndarray:
    """Positions `[N, 2]` of codes `[N, Z]`; those of other codes may be outside the map."""
    flat = (_two(self._pca.transform(codes)) - self._middle) / self._span
    return 0.5 + (1 - 2 * _MARGIN) * flat * [1, -1]

  def nearest(self, x: float, y: float) -> int:
    """Index of the point that is nearest to a position."""
    return int(np.linalg.norm(self.points - [x, y], axis=1).argmin())


def _two(flat: np.ndarray) -> np.ndarray:
  """Pads `[N, 1 or 2]` to `[N, 2]`."""
  return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
