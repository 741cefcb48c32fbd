"""A TFDS data set of picture pairs.

Prepared once from a folder or from `swatches`, read at random ever after.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import hashlib
import io
import itertools
import json
import logging
import os
import pathlib
import struct
import tempfile
import threading
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
import tqdm

from step_jax import files, places
from step_jax.data import folders, pictures
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
# Bump when what is written changes: cached sets of older versions are then made anew.
VERSION = '1.1.0'
# All that a prepared set is made of. TFDS would import whatever module features.json names.
_FEATURES = {
  f'tensorflow_datasets.core.features.{name}'
  for name in ('features_dict.FeaturesDict', 'image_feature.Image', 'text_feature.Text')
}
# By which a prepared set is known.
_MARK = 'dataset_info.json'


class Pairs(tfds.core.GeneratorBasedBuilder):
  """Pictures `A` and `B` (`A` alone when unpaired) and their `name`, as PNG in array_record files.

  PNG and not the original bytes: halves are split, rotations and odd colour modes resolved, and
  damaged files found once, when the set is made; and every machine then decodes the same pixels.
  """

  VERSION = tfds.core.Version(VERSION)

  def __init__(self, *, picture_set: folders.PictureSet, resize: int = 0, **kwargs):
    self._picture_set = picture_set
    self._resize = resize
    self._metadata = tfds.core.MetadataDict(
      layout=picture_set.layout,
      fingerprint=picture_set.fingerprint,
      resize=resize,
      held_out=picture_set.held_out,
      smallest={},
      contents={split: {} for split in picture_set.splits},
    )
    super().__init__(file_format='array_record', **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    sides = 'A' if self._picture_set.layout == 'unpaired' else 'AB'
    image = lambda: tfds.features.Image(shape=(None, None, 3), encoding_format='png')
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {'name': tfds.features.Text(), **{side: image() for side in sides}}
      ),
      metadata=self._metadata,
      disable_shuffling=True,
    )

  def _split_generators(self, download_manager) -> dict[str, Iterator]:
    del download_manager  # Pictures are here already.
    return {split: self._generate_examples(split) for split in self._picture_set.splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    examples = self._picture_set.splits[split]
    progress = tqdm.tqdm(
      total=len(examples), desc=f'preparing {split}', unit='pictures', disable=None
    )
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool, progress:
      # A bounded window: pictures decoded ahead of the writer must not pile up in memory.
      for start in range(0, len(examples), 64):
        window = examples[start : start + 64]
        for i, (example, (shape, content, encoded)) in enumerate(
          zip(window, pool.map(self._encoded, window), strict=True)
        ):
          self._note_size(split, example.name, shape)
          self._metadata['contents'][split][example.name] = content
          yield start + i, {'name': example.name, **encoded}
          progress.update()

  def _encoded(self, example: folders.Example) -> tuple[tuple[int, ...], str, dict[str, bytes]]:
    """Shape, hash of the content, and PNG files of an example's pictures.

    They are not returned decoded: a window of them could fill the memory.
    """
    loaded = example.load()
    sides = {side: fit(image, self._resize) for side, image in loaded.items()}
    shapes = {image.shape for image in sides.values()}
    if len(shapes) > 1:
      a, b = (f'{image.shape[1]}x{image.shape[0]}' for image in sides.values())
      raise DataError(
        f'{example.name}: A is {a} but B is {b} px: the two of a pair must match in size'
      )
    content = example.content or _hash(loaded)
    return shapes.pop(), content, {side: _encode(image) for side, image in sides.items()}

  def _note_size(self, split: str, name: str, shape: tuple[int, ...]) -> None:
    """Keeps the smallest height and width of a split and whose they are, for `check_crop`."""
    smallest = self._metadata['smallest'].setdefault(split, {})
    for axis, side in zip(('height', 'width'), shape[:2], strict=True):
      if axis not in smallest or side < smallest[axis][0]:
        smallest[axis] = [int(side), name]


def fit(image: np.ndarray, shorter_side: int) -> np.ndarray:
  """Scales so that the shorter side is `shorter_side`, keeping the aspect.

  0 leaves the picture as it is.
  """
  if not shorter_side:
    return image
  height, width = image.shape[:2]
  scale = shorter_side / min(height, width)
  return pictures.resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def _hash(sides: Mapping[str, np.ndarray]) -> str:
  """Identifies pictures by their pixels before any resizing."""
  sha256 = hashlib.sha256()
  for side, image in sides.items():
    sha256.update(f'{side}{image.shape}'.encode() + image.tobytes())
  return sha256.hexdigest()[:16]


def _encode(image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'png', compress_level=1)
  return buffer.getvalue()


class PairSplit(Sequence):
  """Random access to the examples of one split: `{'name': str, 'A': uint8 [H, W, 3], 'B': …}`.

  In place of an example that cannot be read stands the next one that can, so that what is at an
  index never depends on what was read before; or reading it is an error. Decoded pictures are kept
  in memory, as many as fit; they are read-only.

  Args:
    source: examples as they are stored.
    where: of which set and split, for messages.
    skip: whether to put up with examples that cannot be read.

  Raises:
    DataError: by all methods, for an example that cannot be read, or if none can.
  """

  def __init__(self, source: Sequence[dict], where: str = '', skip: bool = False):
    self._source = source
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
    images = {side: _decode(stored[side]) for side in ('A', 'B') if side in stored}
    example = {'name': stored['name'].decode(), **images}
    size = sum(image.nbytes for image in images.values())
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
    raise DataError(f'{self._where}: none of its {len(self)} records can be read: prepare it anew')

  def _note(self, index: int, error: Exception) -> None:
    """Says what cannot be read, once for each record; raises that where it is not put up with."""
    try:
      name = f' ({shown(self._name(index))})'
    except _UNREADABLE:
      name = ''
    told = f'{self._where}: record {index}{name} cannot be read ({first_line(error)})'
    if not self._skip:
      raise DataError(
        f'{told}: prepare the set anew, or go on without it by --config.data.unreadable=skip'
      ) from error
    with self._counting:
      if index not in self._unreadable:
        self._unreadable.add(index)
        log.warning(
          '%s: the next one is taken in its place; unreadable so far: %d of %d',
          told, len(self._unreadable), len(self),
        )  # fmt: skip


def _decode(png: bytes) -> np.ndarray:
  with pictures.open_image(io.BytesIO(png)) as opened:
    if opened.mode != 'RGB':
      raise ValueError(f'it is {opened.mode}, not RGB')
    image = np.array(opened)
  image.flags.writeable = False  # It may be kept.
  return image


class PairSet:
  """A prepared data set, open for reading.

  Attributes:
    folder: where it lies.
    splits: name of a split -> how many examples it has.
    paired: whether examples have a `B`.
    fingerprint: changes when the pictures do.
    held_out: whether `val` was chosen by `folders.hold_out`; False for sets of older versions,
      which had another rule.

  Args:
    folder: where it lies.
    unreadable: what to do about records that cannot be read: `stop` or `skip`, see `PairSplit`.

  Raises:
    DataError: the folder is damaged, or asks for code that is not of a prepared set.
  """

  def __init__(self, folder: str | pathlib.Path, unreadable: str = 'stop'):
    self.folder = pathlib.Path(folder)
    self._unreadable = unreadable
    try:
      _check_features(json.loads((self.folder / 'features.json').read_text('utf-8')))
      self._builder = tfds.builder_from_directory(str(folder))
      self._metadata = self._builder.info.metadata
      self.splits = {name: info.num_examples for name, info in self._builder.info.splits.items()}
      self.paired = 'B' in self._builder.info.features
      self.fingerprint = f'{self._metadata["fingerprint"]}-{self._metadata["resize"]}'
      self.held_out = bool(self._metadata.get('held_out'))
      self._contents = {
        split: {str(name): str(content) for name, content in examples.items()}
        for split, examples in self._metadata.get('contents', {}).items()
      }
    except Exception as error:  # Whatever TFDS meets in a damaged file.
      raise DataError(
        f'{folder}: is no prepared set, or is damaged ({first_line(error)}): remove it, and '
        'prepare it anew'
      ) from None

  def split(self, name: str) -> PairSplit:
    """The examples of a split.

    Raises:
      DataError: there is no such split.
    """
    if name not in self.splits:
      raise DataError(f'{self.folder}: has no split {name!r}; it has {", ".join(self.splits)}')
    skip = tfds.decode.SkipDecoding()
    decoders = {'A': skip, 'B': skip} if self.paired else {'A': skip}
    source = self._builder.as_data_source(name, decoders=decoders)
    return PairSplit(source, f'{self.folder}, {name}', self._unreadable == 'skip')

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


def _check_features(found: Any) -> None:
  """Makes sure that a set's features are ours, whose Python classes TFDS then imports.

  Raises:
    ValueError: one is not.
  """
  if isinstance(found, str) and '.' in found and found not in _FEATURES:
    raise ValueError(f'features.json asks for {found}')
  values = found.values() if isinstance(found, dict) else found
  if isinstance(found, dict | list):
    for value in values:
      _check_features(value)


def prepare_in_bucket(picture_set: folders.PictureSet, out: files.Path, resize: int = 0) -> None:
  """As `prepare`, in a bucket: made on this machine, and copied there. It counts once it is whole.

  Raises:
    DataError: as `prepare`.
  """
  if files.listing(out):
    raise DataError(f'{out}: is not empty: remove it, or prepare into another folder')
  with tempfile.TemporaryDirectory(prefix='step_jax-') as here:
    made = prepare(picture_set, pathlib.Path(here) / out.name, resize)
    files.upload_folder(made.folder, out, last=_MARK)


def fetch(folder: files.Path, cache: pathlib.Path) -> pathlib.Path:
  """The copy in `cache` of a prepared data set of a bucket, made unless it is there already.

  Records are read at random, and array_record reads files of this machine only.
  """
  mark = hashlib.sha256(f'{folder}\0{files.listing(folder)[folder / _MARK]}'.encode()).hexdigest()
  here = cache / f'{files.short_name(folder.name)}-{mark[:16]}'
  if not is_prepared(here):
    log.info('%s: is copied to %s', folder, here)
    with files.fetched(folder, cache) as part:
      _move(part, here)
  return here


def prepare(picture_set: folders.PictureSet, out: str | pathlib.Path, resize: int = 0) -> PairSet:
  """Writes a data set to the folder `out` and opens it. It appears whole or not at all.

  Args:
    picture_set: what to write, from `folders.scan` or `swatches.picture_set`.
    out: folder to make; it must not be there, or be empty.
    resize: scale pictures so that their shorter side has this many pixels; 0 keeps their size.

  Raises:
    DataError: `out` is in use, a picture cannot be read, or the two pictures of a pair differ in
      size.
  """
  out = places.expand(out)
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise DataError(f'{out}: is not empty: remove it, or prepare into another folder')
  out.parent.mkdir(parents=True, exist_ok=True)
  tfds.disable_progress_bar()
  with files.temporary_folder(out.parent, out.name) as part:
    builder = Pairs(picture_set=picture_set, resize=resize, data_dir=part)
    try:
      # TFDS announces itself on standard output; our own progress bar says enough.
      with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=part)
    except Exception as error:
      raise _underlying(error) from None
    if out.exists() and not is_prepared(out):
      out.rmdir()
    _move(pathlib.Path(builder.data_dir), out)
  return PairSet(out)


def _move(made: pathlib.Path, out: pathlib.Path) -> None:
  try:
    made.rename(out)
  except OSError:
    # Another process has made the same meanwhile, as two trainings that start together do.
    if not is_prepared(out):
      raise


def _underlying(error: BaseException) -> BaseException:
  """The user's error below what TFDS wraps around it, or `error` itself."""
  cause = error
  while cause is not None and not isinstance(cause, DataError):
    cause = cause.__cause__ or cause.__context__
  return cause or error


def is_prepared(folder: str | os.PathLike) -> bool:
  """Whether `folder` is a prepared data set."""
  mark = files.path(folder) / _MARK
  with files.told(mark) if files.in_bucket(mark) else contextlib.nullcontext():
    return mark.is_file()
