"""Extracts style codes of images of any size, and caches those of data sets."""

import collections
from collections.abc import Iterator, Mapping
import hashlib
import json
import logging
import pathlib
import time

import jax
from jax.experimental import multihost_utils
import numpy as np
import tqdm

from step_jax import data, files, places, untrusted
from step_jax.data import pictures, pipeline
from step_jax.errors import RunError
from step_jax.evaluate import parallel, scores
from step_jax.methods.superstylenet import codes as codes_lib
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.spse import CODE_SIZE, Outcome, extract, spline_table

log = logging.getLogger(__name__)

# Side of the squares that codes are extracted from in the original, in pixels.
SIZE = 512
# Increase this when the result changes, so that cached codes are extracted again.
VERSION = 1
# Number of images in a file of the cache; interrupted extraction loses at most one file.
_IN_FILE = 32
# Seconds between progress messages in the log, if there is no progress bar.
_LOG_SECONDS = 60.0


def fit(image: np.ndarray, labels: np.ndarray, size: int) -> dict[str, np.ndarray]:
  """Resizes an image and its label map to squares, whatever their aspect ratio, as in the original.

  Args:
    image: uint8 `[H, W, 3]`, resized by bicubic interpolation.
    labels: int `[H, W]`, resized by nearest neighbour.
    size: side of the square, px.

  Returns:
    `image`, uint8 `[size, size, 3]`, and `labels`, int32 `[size, size]`.
  """
  if image.shape[:2] != labels.shape:
    raise ValueError(f'image is {image.shape[:2]} but its label map is {labels.shape}')
  rows, columns = (np.arange(size) * side // size for side in labels.shape)
  return {
    'image': pictures.resize(image, (size, size)) if image.shape[:2] != (size, size) else image,
    'labels': labels[rows[:, None], columns].astype(np.int32),
  }


class Extractor:
  """Extracts codes on all devices, one image at a time on each.

  Args:
    num_labels: number of labels, L.
    size: side of the squares that images are resized to, px.
    mesh: devices; None: one device of this process.
  """

  def __init__(self, num_labels: int, size: int = SIZE, mesh: jax.sharding.Mesh | None = None):
    self.num_labels = num_labels
    self.size = size
    self._mesh = mesh or jax.make_mesh((1,), ('data',), devices=jax.local_devices()[:1])
    self._table = spline_table()
    self._extract = parallel.over_devices(self._mesh, self._one)

  def _one(self, table, batch):
    extracted = extract(batch['image'], batch['labels'], self.num_labels, table)
    return {
      'codes': extracted.codes,
      'outcome': extracted.outcome,
      'superpixels': extracted.label_full,
    }

  def each(self, examples: Iterator[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """Extracts codes of examples from `fit`, in order.

    Yields:
      `codes` float32 `[L, 512]`, `outcome` int32 `[L]`, `superpixels` int32 `[size, size]`.
    """
    batches = pipeline.eval_batches(examples, 1, self._mesh.size)
    return scores.in_order(lambda batch: self._extract(self._table, batch), batches)

  def __call__(self, image: np.ndarray, labels: np.ndarray) -> RegionCodes:
    """Codes of one image, uint8 `[H, W, 3]`, with its label map, int `[H, W]`."""
    return _reported(next(self.each(iter([fit(image, labels, self.size)]))))

  def all(self, images: np.ndarray, labels: np.ndarray) -> RegionCodes:
    """Codes `[N, L, 512]` of images `[N, H, W, 3]`, or of one image; see `__call__`."""
    if images.ndim == 3:
      return self(images, labels)
    fitted = (fit(*pair, self.size) for pair in zip(images, labels, strict=True))
    return RegionCodes(*map(np.stack, zip(*map(_reported, self.each(fitted)), strict=True)))

  def superpixels(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Superpixel of every pixel of a resized image, int `[size, size]`, -1 for none.

    Superpixels are numbered within each label.
    """
    return next(self.each(iter([fit(image, labels, self.size)])))['superpixels']


def codes_of(result: Mapping[str, np.ndarray]) -> RegionCodes:
  """The codes in a result of `Extractor.each`."""
  return RegionCodes(result['codes'], result['outcome'] == Outcome.OK)


def _reported(result: Mapping[str, np.ndarray]) -> RegionCodes:
  """`codes_of`; also logs labels without a code, with the reason."""
  for label, outcome in enumerate(map(Outcome, result['outcome'])):
    if outcome not in (Outcome.OK, Outcome.ABSENT):
      log.warning('label %d has no code: %s', label, outcome.reason)
  return codes_of(result)


class KeptCodes:
  """Codes of the examples of a split, read from their files on demand.

  Args:
    folder: folder of the files written by `keep`.
    count: number of examples.
  """

  def __init__(self, folder: pathlib.Path, count: int):
    self._folder = folder
    self._count = count
    self._open: dict[int, np.ndarray] = {}

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> RegionCodes:
    """Codes `[L, 512]` of an example."""
    if not 0 <= index < self._count:
      raise IndexError(index)
    number, row = divmod(index, _IN_FILE)
    if number not in self._open:
      self._open[number] = np.load(_file(self._folder, number), mmap_mode='r')
    return unmarked(np.array(self._open[number][row]))

  def some(self, most: int, seed: int) -> RegionCodes:
    """Codes `[N, L, 512]` of at most `most` examples; a random subset if there are more."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:most])
    codes = [self[int(i)] for i in chosen]
    return RegionCodes(*map(np.stack, zip(*codes, strict=True)))

  def mean(self) -> RegionCodes:
    """Mean code of each label over the examples that have one, `[L, 512]`."""
    total, count = 0.0, 0
    for i in range(len(self)):
      codes, valid = self[i]
      total = total + codes.astype(np.float64)
      count = count + valid
    codes = total / np.maximum(count, 1)[:, None]
    return RegionCodes(codes.astype(np.float32), count > 0)


def keep(
  dataset: data.PairSet,
  split: str,
  side: str,
  num_labels: int,
  size: int,
  mesh: jax.sharding.Mesh,
) -> KeptCodes:
  """The codes of a split of a data set; codes that are not cached are extracted.

  They are stored in the cache (`places.cache`) under a digest of the images and all settings, so
  runs share them. Extraction uses the devices of all hosts. Interrupted extraction resumes at the
  current file of 32 images.

  Args:
    dataset: data set with label maps.
    split: split of the data set.
    side: image of an example, `A` or `B`.
    num_labels: number of labels, L.
    size: side of the squares that images are resized to, px.
    mesh: all devices.
  """
  settings = {
    'version': VERSION,
    'images': dataset.fingerprint,
    'side': side,
    'labels': num_labels,
    'size': size,
  }
  digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
  name = files.short_name(dataset.folder.name)
  folder = places.cache() / 'codes' / f'{name}-{digest}' / split
  count = dataset.splits[split]
  numbers = range(-(-count // _IN_FILE))
  here = np.array(
    [_is_whole(_file(folder, n), min(_IN_FILE, count - n * _IN_FILE), num_labels) for n in numbers]
  )
  # A file that is missing on one host is extracted by all, because they share the work per image.
  everywhere = np.all(multihost_utils.process_allgather(here).reshape(-1, len(here)), axis=0)
  missing = [n for n in numbers if not everywhere[n]]
  if missing:
    folder.mkdir(parents=True, exist_ok=True)
    _extract_files(dataset.split(split), side, folder, missing, Extractor(num_labels, size, mesh))
  return KeptCodes(folder, count)


def _extract_files(examples, side, folder, numbers, extractor: Extractor) -> None:
  rows = [range(n * _IN_FILE, min((n + 1) * _IN_FILE, len(examples))) for n in numbers]
  total = sum(map(len, rows))
  log.info(
    '%s: extracting the style codes of %d images at %d px, once', folder, total, extractor.size
  )
  fitted = (
    fit(examples[i][side], examples[i]['labels'], extractor.size) for own in rows for i in own
  )
  extracted = extractor.each(fitted)
  start = logged = time.monotonic()
  done, outcomes = 0, collections.Counter()
  with tqdm.tqdm(total=total, desc='style codes', unit='images', disable=None) as bar:
    for number, own in zip(numbers, rows, strict=True):
      marked = []
      for _ in own:
        result = next(extracted)
        outcomes.update(result['outcome'].tolist())
        marked.append(codes_lib.pack(codes_of(result)))
        done += 1
        bar.update()
        if time.monotonic() - logged > _LOG_SECONDS:
          logged = time.monotonic()
          remaining = (logged - start) / done * (total - done)
          log.info('style codes: %d of %d images, %.0f min left', done, total, remaining / 60)
      files.write_array(_file(folder, number), np.stack(marked))
  for outcome in (Outcome.NO_STEP, Outcome.TOO_FEW_SUPERPIXELS):
    if outcomes[outcome]:
      log.info('%d regions of these images have no code: %s', outcomes[outcome], outcome.reason)


def _file(folder: pathlib.Path, number: int) -> pathlib.Path:
  return folder / f'{number:05d}.npy'


def _is_whole(path: pathlib.Path, count: int, num_labels: int) -> bool:
  """Whether a file of cached codes exists and has the right shape; logs damaged files."""
  try:
    return np.load(path, mmap_mode='r').shape == (count, num_labels, CODE_SIZE)
  except FileNotFoundError:
    return False
  except (OSError, ValueError, EOFError) as error:
    log.warning('%s: is damaged (%s): its codes are extracted again', path, error)
    return False


def unmarked(marked: np.ndarray) -> RegionCodes:
  """Converts an array `[..., L, 512]`, with NaN for labels without a code, to codes."""
  valid = ~np.isnan(marked).any(axis=-1)
  return RegionCodes(np.where(valid[..., None], marked, 0.0).astype(np.float32), valid)


def read_bank(path: files.Path, num_labels: int) -> tuple[RegionCodes, RegionCodes]:
  """Reads a file of `write_bank`.

  Returns:
    Codes `[N, L, 512]` of some training images, and the mean code of each label, `[L, 512]`.

  Raises:
    RunError: the file is missing or damaged.
  """
  remedy = 're-run the training command, which writes it again'
  if not path.is_file():
    raise RunError(f'{path}: is missing: {remedy}')
  arrays = untrusted.read_arrays(path, remedy)
  try:
    some, mean = arrays['some'], arrays['mean']
    if some.shape[1:] != (num_labels, CODE_SIZE) or mean.shape != some.shape[1:]:
      raise ValueError(f'codes are {some.shape}')
  except (KeyError, ValueError) as error:
    raise untrusted.damaged(path, error, remedy) from None
  return unmarked(some), unmarked(mean)


def write_bank(path: files.Path, some: RegionCodes, mean: RegionCodes) -> None:
  """Writes codes of some training images and the mean codes to a file, for `read_bank`."""
  files.write_arrays(path, {'some': codes_lib.pack(some), 'mean': codes_lib.pack(mean)})
