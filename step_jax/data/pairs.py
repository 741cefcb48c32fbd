"""Reads a prepared TFDS data set of image pairs, label maps and arrays, with random access.

`builder` prepares it from a folder or from `swatches`.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import logging
import os
import pathlib
import struct
import threading
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from step_jax import files
from step_jax.data import pictures
from step_jax.data.folders import IMAGES, LABELS
from step_jax.data.labels import NONE as NO_LABELS
from step_jax.data.labels import Labels
from step_jax.errors import DataError, first_line, shown

log = logging.getLogger(__name__)

# Exceptions of the readers of records and images for damaged ones.
_UNREADABLE = (
  *(RuntimeError, OSError, ValueError, SyntaxError, struct.error),
  Image.DecompressionBombError,
)
# Bytes of decoded images that a split keeps in memory, so that small sets are decoded once: 2,500
# pairs of 256 px.
_CACHE_BYTES = 2**30
# Features of prepared sets. TFDS would import any module that features.json names.
_FEATURES = {
  f'tensorflow_datasets.core.features.{name}'
  for name in (
    'features_dict.FeaturesDict',
    'image_feature.Image',
    'tensor_feature.Tensor',
    'text_feature.Text',
  )
}
# File that identifies a prepared set.
MARK = 'dataset_info.json'


class PairSplit(Sequence):
  """Random access to the examples of one split: `{'name': str, 'A': uint8 [H, W, 3], 'B': …}`.

  Examples also have `labels`, uint8 `[H, W]`, and arrays, float32, if these are read.

  If an example cannot be read, the next readable one is returned in its place, or an error is
  raised. What an index returns thus never depends on earlier reads. Decoded images are kept in
  memory as far as they fit; they are read-only.

  Args:
    source: stored examples.
    where: data set and split, for messages.
    skip: whether to replace unreadable examples.
    labels: how to read label maps; without a palette, neither label maps nor arrays are read.

  Raises:
    DataError: raised by all methods if an example cannot be read, or none can.
  """

  def __init__(
    self,
    source: Sequence[dict],
    where: str = '',
    skip: bool = False,
    labels: Labels = NO_LABELS,
  ):
    self._source = source
    self._labels = labels
    self._where = where
    self._skip = skip
    self._unreadable: set[int] = set()
    self._decoded: dict[int, dict] = {}
    self._bytes_left = _CACHE_BYTES
    self._counting = threading.Lock()

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict:
    if not 0 <= index < len(self):
      raise IndexError(index)
    return self._readable(index, self._example)

  def names(self) -> list[str]:
    """Names of all examples, in order; no image is decoded."""
    return [self._readable(i, self._name) for i in range(len(self))]

  def _stored(self, index: int) -> dict:
    example = self._source[index]
    if not example['name']:  # This happens if the file is truncated.
      raise ValueError('it is empty')
    return example

  def _name(self, index: int) -> str:
    return self._stored(index)['name'].decode()

  def _example(self, index: int) -> dict:
    if index in self._decoded:
      return dict(self._decoded[index])
    stored = self._stored(index)
    arrays = {side: _decode(stored[side]) for side in IMAGES if side in stored}
    if self._labels.palette:
      arrays[LABELS] = _read_only(self._labels.numbered(_decode(stored[LABELS], 'L')))
      names = stored.keys() - {'name', LABELS, *IMAGES}
      arrays |= {name: _read_only(stored[name]) for name in sorted(names)}
    example = {'name': stored['name'].decode(), **arrays}
    size = sum(array.nbytes for array in arrays.values())
    with self._counting:
      if size <= self._bytes_left and index not in self._decoded:
        self._bytes_left -= size
        self._decoded[index] = dict(example)
    return example

  def _readable(self, index: int, read: Callable[[int], Any]) -> Any:
    for candidate in itertools.chain(range(index, len(self)), range(index)):
      try:
        return read(candidate)
      except _UNREADABLE as error:
        self._note(candidate, error)
    raise DataError(f'{self._where}: none of its {len(self)} records can be read: prepare it again')

  def _note(self, index: int, error: Exception) -> None:
    """Raises an error for an unreadable record, or warns once per record with `skip`."""
    try:
      name = f' ({shown(self._name(index))})'
    except _UNREADABLE:
      name = ''
    message = f'{self._where}: record {index}{name} cannot be read ({first_line(error)})'
    if not self._skip:
      raise DataError(
        f'{message}: prepare the set again, or continue without it by --config.data.unreadable=skip'
      ) from error
    with self._counting:
      if index not in self._unreadable:
        self._unreadable.add(index)
        log.warning(
          '%s: the next one is used instead; unreadable so far: %d of %d',
          message, len(self._unreadable), len(self),
        )  # fmt: skip


def _decode(png: bytes, mode: str = 'RGB') -> np.ndarray:
  with pictures.open_image(io.BytesIO(png)) as opened:
    if opened.mode != mode:
      raise ValueError(f'it is {opened.mode}, not {mode}')
    return _read_only(np.array(opened))


def _read_only(array: np.ndarray) -> np.ndarray:
  array.flags.writeable = False  # It may be cached.
  return array


class PairSet:
  """A prepared data set, open for reading.

  Attributes:
    folder: folder of the data set.
    splits: name of a split -> number of examples.
    paired: whether examples have a `B`.
    fingerprint: changes when the images change.
    sizes: name of a split -> number of different image sizes; 0 for sets of older versions.
    held_out: whether `val` was chosen by `folders.hold_out`; False for sets of older versions,
      which had another rule.
    labels: how label maps are read; without a palette, neither label maps nor arrays are read.
    arrays: name of an array -> its shape in an example.

  Args:
    folder: folder of the data set.
    unreadable: what to do about unreadable records: `stop` or `skip`, see `PairSplit`.
    labels: how to read label maps.

  Raises:
    DataError: the folder is damaged, requests code other than that of a prepared set, has no label
      maps although they are requested, or has other classes.
  """

  def __init__(
    self, folder: str | pathlib.Path, unreadable: str = 'stop', labels: Labels = NO_LABELS
  ):
    self.folder = pathlib.Path(folder)
    self._unreadable = unreadable
    try:
      _check_features(json.loads((self.folder / 'features.json').read_text('utf-8')))
      self._builder = tfds.builder_from_directory(str(folder))
      self._metadata = self._builder.info.metadata
      self.splits = {name: info.num_examples for name, info in self._builder.info.splits.items()}
      features = self._builder.info.features
      self.paired = 'B' in features
      self.fingerprint = f'{self._metadata["fingerprint"]}-{self._metadata["resize"]}'
      self.held_out = bool(self._metadata.get('held_out'))
      self._contents = {
        split: {str(name): str(content) for name, content in examples.items()}
        for split, examples in self._metadata.get('contents', {}).items()
      }
      sizes = self._metadata.get('sizes', {})  # Sets of older versions have none.
      self.sizes = {split: int(sizes.get(split, 0)) for split in self.splits}
      self.labels, self.arrays, values = labels, {}, {}
      if labels.palette and LABELS in features:
        names = features.keys() - {'name', LABELS, *IMAGES}
        self.arrays = {name: tuple(features[name].shape) for name in sorted(names)}
        # Preparation has converted files to numbers, with the palette of that time.
        palette = 'index_void' if self._metadata['palette'] == 'index_void' else 'index'
        self.labels = dataclasses.replace(labels, palette=palette)
        values = {
          int(value): f'label map of {name}' for value, name in self._metadata['classes'].items()
        }
    except Exception as error:  # TFDS may raise anything on damaged files.
      raise DataError(
        f'{folder}: is no prepared set, or is damaged ({first_line(error)}): remove it, and '
        'prepare it again'
      ) from None
    if labels.palette:
      if not values:
        raise DataError(
          f'{folder}: was prepared without label maps, which this stage needs: prepare it again by '
          'step-jax prepare --palette'
        )
      labels.check_colors()
      self.labels.check_values(values)

  def split(self, name: str) -> PairSplit:
    """The examples of a split.

    Raises:
      DataError: there is no such split.
    """
    if name not in self.splits:
      raise DataError(f'{self.folder}: has no split {name!r}; it has {", ".join(self.splits)}')
    skip = tfds.decode.SkipDecoding()
    encoded = self._builder.info.features.keys() & {*IMAGES, LABELS}
    source = self._builder.as_data_source(name, decoders=dict.fromkeys(encoded, skip))
    return PairSplit(source, f'{self.folder}, {name}', self._unreadable == 'skip', self.labels)

  def contents(self, split: str) -> dict[str, str]:
    """Name of an example -> hash of its pixels before resizing, for a split.

    Sets of older versions have no such hashes; the fingerprint of the set is used instead.
    """
    return self._contents.get(split) or dict.fromkeys(self.split(split).names(), self.fingerprint)

  def check_crop(self, split: str, crop: tuple[int, int]) -> None:
    """Checks that all images of a split have at least the size `crop = (height, width)`.

    Raises:
      DataError: an image is smaller; names the smallest one.
    """
    smallest = self._metadata['smallest'][split]
    for axis, needed in zip(('height', 'width'), crop, strict=True):
      size, name = smallest[axis]
      if size < needed:
        raise DataError(
          f'{name}: its {axis} of {size} px is below the crop of {needed} (data.crop): '
          f'scale the images with --size or data.resize={needed}, or set a smaller crop'
        )


def _check_features(features: Any) -> None:
  """Checks that a data set has only our features, because TFDS imports their Python classes.

  Raises:
    ValueError: there is another feature.
  """
  if isinstance(features, str) and '.' in features and features not in _FEATURES:
    raise ValueError(f'features.json asks for {features}')
  values = features.values() if isinstance(features, dict) else features
  if isinstance(features, dict | list):
    for value in values:
      _check_features(value)


def fetch(folder: files.Path, cache: pathlib.Path) -> pathlib.Path:
  """Copies a prepared data set from a bucket to the cache, unless it is there already.

  Records are read in random order, and array_record reads only local files.
  """
  mark = hashlib.sha256(f'{folder}\0{files.listing(folder)[folder / MARK]}'.encode()).hexdigest()
  here = cache / f'{files.short_name(folder.name)}-{mark[:16]}'
  if not is_prepared(here):
    log.info('%s: is copied to %s', folder, here)
    with files.fetched(folder, cache) as part:
      move(part, here)
  return here


def move(folder: pathlib.Path, out: pathlib.Path) -> None:
  """Moves a prepared set to its place, unless another process has created it meanwhile."""
  try:
    folder.rename(out)
  except OSError:
    # Two trainings that start together may do this.
    if not is_prepared(out):
      raise


def is_prepared(folder: str | os.PathLike) -> bool:
  """Whether `folder` is a prepared data set."""
  mark = files.path(folder) / MARK
  with files.bucket_errors(mark) if files.in_bucket(mark) else contextlib.nullcontext():
    return mark.is_file()
