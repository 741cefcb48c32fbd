"""A TFDS data set of image pairs, label maps and arrays, open for reading.

`builder` prepares it once from a folder or from `swatches`; it is read at random ever after.
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

# What the readers of records and of pictures raise over damaged ones.
_UNREADABLE = (
  *(RuntimeError, OSError, ValueError, SyntaxError, struct.error),
  Image.DecompressionBombError,
)
# Bytes of decoded pictures that a split keeps in memory: small sets are decoded once. 2,500 pairs
# of 256 px.
_CACHE_BYTES = 2**30
# All that a prepared set is made of. TFDS would import whatever module features.json names.
_FEATURES = {
  f'tensorflow_datasets.core.features.{name}'
  for name in (
    'features_dict.FeaturesDict',
    'image_feature.Image',
    'tensor_feature.Tensor',
    'text_feature.Text',
  )
}
# By which a prepared set is known.
MARK = 'dataset_info.json'


class PairSplit(Sequence):
  """Random access to the examples of one split: `{'name': str, 'A': uint8 [H, W, 3], 'B': …}`.

  With these come `labels`, uint8 `[H, W]`, and arrays, float32, where they are read.

  In place of an example that cannot be read stands the next one that can, so that what is at an
  index never depends on what was read before; or reading it is an error. Decoded pictures are kept
  in memory, as many as fit; they are read-only.

  Args:
    source: examples as they are stored.
    where: of which set and split, for messages.
    skip: whether to put up with examples that cannot be read.
    labels: how label maps are read; without a palette, neither they nor arrays are.

  Raises:
    DataError: by all methods, for an example that cannot be read, or if none can.
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
    """Names of all examples, in order; no picture is decoded."""
    return [self._readable(i, self._name) for i in range(len(self))]

  def _stored(self, index: int) -> dict:
    example = self._source[index]
    if not example['name']:  # So it is read from a file that was cut short.
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
    """Says what cannot be read, once for each record; raises that where it is not put up with."""
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
  array.flags.writeable = False  # It may be kept.
  return array


class PairSet:
  """A prepared data set, open for reading.

  Attributes:
    folder: where it lies.
    splits: name of a split -> how many examples it has.
    paired: whether examples have a `B`.
    fingerprint: changes when the pictures do.
    held_out: whether `val` was chosen by `folders.hold_out`; False for sets of older versions,
      which had another rule.
    labels: how its label maps are read; without a palette, neither they nor arrays are.
    arrays: name -> shape of an example's array of that name.

  Args:
    folder: where it lies.
    unreadable: what to do about records that cannot be read: `stop` or `skip`, see `PairSplit`.
    labels: how to read label maps.

  Raises:
    DataError: the folder is damaged, asks for code that is not of a prepared set, has no label maps
      where they are to be read, or has other classes.
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
      self.labels, self.arrays, values = labels, {}, {}
      if labels.palette and LABELS in features:
        names = features.keys() - {'name', LABELS, *IMAGES}
        self.arrays = {name: tuple(features[name].shape) for name in sorted(names)}
        # Files have become numbers when the set was prepared, by the palette of then.
        palette = 'index_void' if self._metadata['palette'] == 'index_void' else 'index'
        self.labels = dataclasses.replace(labels, palette=palette)
        values = {
          int(value): f'label map of {name}' for value, name in self._metadata['classes'].items()
        }
    except Exception as error:  # Whatever TFDS meets in a damaged file.
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
    """What the examples of a split are: name -> hash of the pixels before resizing.

    Sets of older versions have no such hashes; the set's fingerprint stands in their place.
    """
    return self._contents.get(split) or dict.fromkeys(self.split(split).names(), self.fingerprint)

  def check_crop(self, split: str, crop: tuple[int, int]) -> None:
    """Makes sure that every picture of a split is at least `crop = (height, width)` large.

    Raises:
      DataError: names the smallest picture and the remedy.
    """
    smallest = self._metadata['smallest'][split]
    for axis, needed in zip(('height', 'width'), crop, strict=True):
      size, name = smallest[axis]
      if size < needed:
        raise DataError(
          f'{name}: its {axis} of {size} px is below the crop of {needed} (data.crop): '
          f'set a smaller crop, or data.resize={needed} or more'
        )


def _check_features(features: Any) -> None:
  """Makes sure that a set's features are ours, whose Python classes TFDS then imports.

  Raises:
    ValueError: one is not.
  """
  if isinstance(features, str) and '.' in features and features not in _FEATURES:
    raise ValueError(f'features.json asks for {features}')
  values = features.values() if isinstance(features, dict) else features
  if isinstance(features, dict | list):
    for value in values:
      _check_features(value)


def fetch(folder: files.Path, cache: pathlib.Path) -> pathlib.Path:
  """The copy in `cache` of a prepared data set of a bucket, made unless it is there already.

  Records are read at random, and array_record reads files of this machine only.
  """
  mark = hashlib.sha256(f'{folder}\0{files.listing(folder)[folder / MARK]}'.encode()).hexdigest()
  here = cache / f'{files.short_name(folder.name)}-{mark[:16]}'
  if not is_prepared(here):
    log.info('%s: is copied to %s', folder, here)
    with files.fetched(folder, cache) as part:
      move(part, here)
  return here


def move(folder: pathlib.Path, out: pathlib.Path) -> None:
  """Moves a prepared set to its place, unless another process has made the same meanwhile."""
  try:
    folder.rename(out)
  except OSError:
    # As two trainings that start together do.
    if not is_prepared(out):
      raise


def is_prepared(folder: str | os.PathLike) -> bool:
  """Whether `folder` is a prepared data set."""
  mark = files.path(folder) / MARK
  with files.bucket_errors(mark) if files.in_bucket(mark) else contextlib.nullcontext():
    return mark.is_file()
