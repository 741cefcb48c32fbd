"""Writes image pairs, label maps and arrays as a TFDS data set, to be read with `pairs`."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import tempfile

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
import tqdm

from step_jax import files, places
from step_jax.data import folders, pictures
from step_jax.data.folders import LABELS
from step_jax.data.pairs import MARK, PairSet, is_prepared, move
from step_jax.errors import DataError

# Increase this when the output changes, so that cached sets are prepared again.
VERSION = '1.1.0'


class Pairs(tfds.core.GeneratorBasedBuilder):
  """Images `A` and `B` (only `A` if unpaired) and their `name`, as PNG in array_record files.

  Examples may also have a label map, `labels`, as grey PNG, and arrays. Images are stored as PNG,
  not as the original files: halves are then split, rotations and colour modes resolved and damaged
  files detected once, during preparation, and every machine decodes the same pixels.
  """

  VERSION = tfds.core.Version(VERSION)

  def __init__(self, *, picture_set: folders.PictureSet, resize: int = 0, **kwargs):
    self._picture_set = picture_set
    self._resize = resize
    self._sizes = {split: set() for split in picture_set.splits}
    self._metadata = tfds.core.MetadataDict(
      layout=picture_set.layout,
      fingerprint=picture_set.fingerprint,
      resize=resize,
      held_out=picture_set.held_out,
      smallest={},
      sizes={},
      contents={split: {} for split in picture_set.splits},
    )
    if picture_set.palette:
      self._metadata |= dict(palette=picture_set.palette, classes={})
    super().__init__(file_format='array_record', **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    image = lambda channels: tfds.features.Image(
      shape=(None, None, channels), encoding_format='png'
    )
    features = {'name': tfds.features.Text()}
    features |= {side: image(3) for side in self._picture_set.images}
    if self._picture_set.palette:
      features[LABELS] = image(1)
    for name, shape in self._picture_set.arrays.items():
      features[name] = tfds.features.Tensor(shape=shape, dtype=np.float32)
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      metadata=self._metadata,
      disable_shuffling=True,
    )

  def _split_generators(self, download_manager) -> dict[str, Iterator]:
    del download_manager  # There is nothing to download.
    return {split: self._generate_examples(split) for split in self._picture_set.splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    examples = self._picture_set.splits[split]
    progress = tqdm.tqdm(
      total=len(examples), desc=f'preparing {split}', unit='pictures', disable=None
    )
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool, progress:
      # A window limits the number of decoded images that wait in memory for the writer.
      for start in range(0, len(examples), 64):
        window = examples[start : start + 64]
        for i, (example, encoded) in enumerate(
          zip(window, pool.map(self._encoded, window), strict=True)
        ):
          self._note_size(split, example.name, encoded.size)
          for value in encoded.classes:
            self._metadata['classes'].setdefault(str(value), example.name)
          self._metadata['contents'][split][example.name] = encoded.content
          yield start + i, {'name': example.name, **encoded.features}
          progress.update()

  def _encoded(self, example: folders.Example) -> '_Encoded':
    """Encodes an example.

    Decoded images are not returned, because a window of them could fill the memory.
    """
    loaded = example.load()
    images = {side: pictures.fit(loaded[side], self._resize) for side in self._picture_set.images}
    sizes = {side: image.shape[:2] for side, image in images.items()}
    if len(set(sizes.values())) > 1:
      a, b = (f'{width}x{height}' for height, width in sizes.values())
      raise DataError(
        f'{example.name}: A is {a} but B is {b} px: the two of a pair must match in size'
      )
    features = {side: _encode(image) for side, image in images.items()}
    classes = []
    if LABELS in loaded:
      labels = _resize_labels(loaded[LABELS], sizes['A'], example.name)
      features[LABELS], classes = _encode(labels), np.unique(labels).tolist()
    features |= {name: loaded[name] for name in self._picture_set.arrays}
    return _Encoded(sizes['A'], example.content or _hash(loaded), features, classes)

  def _note_size(self, split: str, name: str, size: tuple[int, int]) -> None:
    """Records the smallest height and width of a split with their examples, and counts sizes."""
    self._sizes[split].add(size)
    self._metadata['sizes'][split] = len(self._sizes[split])
    smallest = self._metadata['smallest'].setdefault(split, {})
    for axis, side in zip(('height', 'width'), size, strict=True):
      if axis not in smallest or side < smallest[axis][0]:
        smallest[axis] = [int(side), name]


@dataclasses.dataclass(frozen=True)
class _Encoded:
  """An encoded example.

  Attributes:
    size: height and width of its images.
    content: hash of its content.
    features: PNG files and arrays.
    classes: classes in its label map.
  """

  size: tuple[int, int]
  content: str
  features: Mapping[str, bytes | np.ndarray]
  classes: Sequence[int]


def _resize_labels(labels: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
  """Resizes a label map to the size of its image.

  Raises:
    DataError: their aspect ratios differ.
  """
  fitted = pictures.fit(labels, min(size))
  if max(abs(a - b) for a, b in zip(fitted.shape, size, strict=True)) > 1:
    (height, width), (label_height, label_width) = size, labels.shape
    raise DataError(
      f'{name}: its label map of {label_width}x{label_height} px has another aspect than its '
      f'image of {width}x{height} px: crop one of them'
    )
  return pictures.resize(labels, size)


def _hash(sides: Mapping[str, np.ndarray]) -> str:
  """Hash of the pixels of an example, before resizing, and of its arrays."""
  sha256 = hashlib.sha256()
  for side, array in sides.items():
    sha256.update(f'{side}{array.shape}'.encode() + array.tobytes())
  return sha256.hexdigest()[:16]


def _encode(image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'png', compress_level=1)
  return buffer.getvalue()


def prepare_in_bucket(picture_set: folders.PictureSet, out: files.Path, resize: int = 0) -> None:
  """Prepares a data set on this machine, see `prepare`, and copies it to a bucket.

  Raises:
    DataError: as `prepare`.
  """
  if files.listing(out):
    raise DataError(f'{out}: is not empty: remove it, or prepare into another folder')
  with tempfile.TemporaryDirectory(prefix='step_jax-') as here:
    prepared = prepare(picture_set, pathlib.Path(here) / out.name, resize)
    files.upload_folder(prepared.folder, out, last=MARK)


def prepare(picture_set: folders.PictureSet, out: str | pathlib.Path, resize: int = 0) -> PairSet:
  """Writes a data set to a folder, atomically, and opens it.

  Args:
    picture_set: data set to write, from `folders.scan` or `swatches.picture_set`.
    out: folder to create; it must not exist, or be empty.
    resize: shorter side to scale images to, px; 0: no scaling.

  Raises:
    DataError: `out` is not empty, an image cannot be read, or the two images of a pair differ in
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
      # Hides the standard output of TFDS, because there is a progress bar.
      with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=part)
    except Exception as error:
      raise _underlying(error) from None
    if out.exists() and not is_prepared(out):
      out.rmdir()
    move(pathlib.Path(builder.data_dir), out)
  return PairSet(out)


def _underlying(error: BaseException) -> BaseException:
  """The DataError that TFDS has wrapped, or `error` itself."""
  cause = error
  while cause is not None and not isinstance(cause, DataError):
    cause = cause.__cause__ or cause.__context__
  return cause or error
