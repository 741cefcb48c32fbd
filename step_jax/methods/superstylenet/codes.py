"""Style codes of the regions of an image: replace, blend, sample, complete, read and write."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from step_jax import files, untrusted
from step_jax.errors import DataError, RunError

_REMEDY = 'extract the codes again, or delete the file'


class RegionCodes(NamedTuple):
  """Raw style codes of an image, one per label; codes of many images have leading axes.

  Methods return new codes and do not change these.

  Attributes:
    codes: float32 `[..., L, C]`, values about [0, 1]; zeros for labels without a code.
    valid: bool `[..., L]`, labels with a code.
  """

  codes: np.ndarray
  valid: np.ndarray

  def with_region(self, label: int, other: 'RegionCodes') -> 'RegionCodes':
    """Replaces the code of one label by that of another image.

    Raises:
      DataError: there is no such label.
      ValueError: the other image has no code for it.
    """
    self._check([label])
    if not other.valid[label]:
      raise ValueError(f'the other image has no code for label {label}; choose an image that has')
    codes, valid = self.codes.copy(), self.valid.copy()
    codes[label], valid[label] = other.codes[label], True
    return RegionCodes(codes, valid)

  def interpolate(
    self, other: 'RegionCodes', share: float, regions: Iterable[int] | None = None
  ) -> 'RegionCodes':
    """Interpolates to the codes of another image: `(1 - share) * self + share * other`.

    A label that has a code in only one of the two keeps that code.

    Args:
      other: codes of another image.
      share: weight of the other image; values outside [0, 1] extrapolate.
      regions: labels to interpolate; None: all.

    Raises:
      DataError: there is no such label.
    """
    chosen = np.ones(len(self.valid), bool)
    if regions is not None:
      regions = list(regions)
      self._check(regions)
      chosen[:] = False
      chosen[regions] = True
    share = np.float32(share)
    mixed = (1 - share) * self.codes + share * other.codes
    both = (chosen & self.valid & other.valid)[:, None]
    borrowed = chosen & ~self.valid & other.valid
    codes = np.where(both, mixed, np.where(borrowed[:, None], other.codes, self.codes))
    return RegionCodes(codes.astype(np.float32), self.valid | borrowed)

  def complete(self, fallback: 'RegionCodes') -> 'Completed':
    """Fills labels without a code from a fallback, such as `mean` of the training codes.

    Args:
      fallback: codes `[L, C]`.

    Returns:
      The codes, and the labels that were filled.
    """
    borrowed = ~self.valid & fallback.valid
    codes = np.where(borrowed[..., None], fallback.codes, self.codes).astype(np.float32)
    return Completed(RegionCodes(codes, self.valid | borrowed), borrowed)

  def mean(self) -> 'RegionCodes':
    """Mean code of each label over the images that have one, `[N, L, C] -> [L, C]`."""
    count = self.valid.sum(axis=0)
    sums = np.sum(self.codes, axis=0, where=self.valid[..., None], dtype=np.float64)
    codes = sums / np.maximum(count, 1)[:, None]
    return RegionCodes(codes.astype(np.float32), count > 0)

  def sample(self, count: int, seed: int) -> 'RegionCodes':
    """Samples codes from those of many images: `[N, L, C] -> [count, L, C]`.

    The code of every label is that of a random image that has one, chosen independently, so the
    regions of a result come from different images. Labels without a code in any image have none.

    Args:
      count: number of results.
      seed: random seed.
    """
    random = np.random.default_rng(seed)
    num_labels = self.valid.shape[1]
    codes = np.zeros((count, num_labels, self.codes.shape[-1]), np.float32)
    for label in range(num_labels):
      having = np.flatnonzero(self.valid[:, label])
      # Random numbers for every label, so that the images of one label do not affect other labels.
      draws = random.random(count)
      if len(having):
        codes[:, label] = self.codes[having[(draws * len(having)).astype(int)], label]
    return RegionCodes(codes, np.broadcast_to(self.valid.any(axis=0), codes.shape[:2]).copy())

  def _check(self, labels: list[int]) -> None:
    for label in labels:
      if not 0 <= label < len(self.valid):
        raise DataError(f'there is no label {label}: labels are 0 to {len(self.valid) - 1}')


class Completed(NamedTuple):
  """Codes after `RegionCodes.complete`.

  Attributes:
    codes: the codes; labels without a code in the fallback still have none.
    borrowed: bool `[..., L]`, labels with a code from the fallback.
  """

  codes: RegionCodes
  borrowed: np.ndarray

  def missing(self, labels: np.ndarray) -> list[int]:
    """Labels of a map, int `[H, W]`, without a code; the network treats them as black."""
    present = np.unique(labels)
    valid = present[(present >= 0) & (present < self.codes.valid.shape[-1])]
    return [int(label) for label in valid if not self.codes.valid[..., label].all()]

  def notes(self, labels: np.ndarray, source: str = 'the mean code of the label') -> list[str]:
    """Messages about labels of a map, int `[H, W]`, without their own code.

    Args:
      labels: the label map.
      source: description of the codes that replace them.
    """
    present = np.unique(labels)
    borrowed = [int(x) for x in np.flatnonzero(np.atleast_1d(self.borrowed)) if x in present]
    notes = []
    if borrowed:
      notes.append(f'labels {_listed(borrowed)} have no code in the style image: used {source}')
    missing = self.missing(labels)
    if missing:
      notes.append(f'labels {_listed(missing)} have no code at all: drawn with the code of black')
    return notes


def _listed(labels: list[int]) -> str:
  return ', '.join(map(str, labels))


def pack(codes: RegionCodes) -> np.ndarray:
  """Converts codes to a float32 array `[..., L, C]`, with NaN for labels without a code."""
  return np.where(codes.valid[..., None], codes.codes, np.nan).astype(np.float32)


def unpack(array: np.ndarray, num_labels: int, size: int) -> RegionCodes:
  """Converts an array from `pack`, or of the original SuperStyleNet, to codes of an image.

  Arrays of the original are float64 `[L, 1, 1, 1, C]`, with zeros for labels without a code.

  Args:
    array: the array.
    num_labels: expected number of labels, L.
    size: length of a code, C.

  Raises:
    ValueError: the shape differs, or numbers of a code are not finite.
  """
  expected = (num_labels, size), (num_labels, 1, 1, 1, size)
  if array.shape not in expected or array.dtype.kind != 'f':
    raise ValueError(
      f'holds {array.dtype} {list(array.shape)}, expected the codes of {num_labels} labels, '
      f'{list(expected[0])} or {list(expected[1])}: check the number of labels'
    )
  original = array.ndim > 2
  codes = array.reshape(num_labels, size).astype(np.float32)
  valid = codes.any(axis=1) if original else ~np.isnan(codes).all(axis=1)
  if not np.isfinite(codes[valid]).all():
    raise ValueError('a code is not finite')
  return RegionCodes(np.where(valid[:, None], codes, 0.0).astype(np.float32), valid)


def write(path: files.Path, codes: RegionCodes) -> None:
  """Writes the codes of an image as a `.npy` file; see `pack`."""
  files.write_array(path, pack(codes))


def read(path: files.Path, num_labels: int, size: int) -> RegionCodes:
  """Reads the codes of an image; see `unpack`.

  Raises:
    RunError: the file is damaged, has another shape, or numbers of a code are not finite.
  """
  array = untrusted.read_arrays(path, _REMEDY)['']
  try:
    return unpack(array, num_labels, size)
  except ValueError as error:
    raise RunError(f'{path}: {error}: {_REMEDY}') from None
