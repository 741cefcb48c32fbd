"""Reads input files of commands: label maps, codes of regions, codes without a run."""

import numpy as np

from step_jax import files
from step_jax.data import pictures
from step_jax.data.labels import Labels
from step_jax.errors import DataError, shown
from step_jax.infer import gallery
from step_jax.methods.superstylenet import codes as codes_lib
from step_jax.methods.superstylenet import extraction
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.regions import Region
from step_jax.methods.superstylenet.spse import CODE_SIZE


def read_source(run, path: files.Path, half: str, resize: int) -> tuple[np.ndarray, np.ndarray]:
  """Reads a label map, uint8 `[H, W]`, and an image of it for display.

  Args:
    run: the run, whose configuration defines how to read label maps.
    path: path of the file.
    half: `left` or `right` half of an A|B image; empty for the whole image.
    resize: shorter side in pixels; 0 keeps the size.
  """
  labels = Labels.of(run.config.data)
  if half:
    image = pictures.read_picture(path)
    middle = image.shape[1] // 2
    image = image[:, :middle] if half == 'left' else image[:, middle:]
    labels = labels.check(labels.from_image(image, shown(str(path))), shown(str(path)))
  else:
    labels = labels.read(path)
  labels = pictures.fit(labels, resize)
  return labels, gallery.shown(labels)


def read_labels(run, path: files.Path, image: np.ndarray) -> np.ndarray:
  """Reads the label map of an image, uint8 `[H, W]`, and resizes it to the size of the image.

  Args:
    run: a run or an `Encoder`, which defines how to read label maps.
    path: path of the file.
    image: uint8 `[H, W, 3]`.
  """
  return pictures.resize(run.labels.read(path), image.shape[:2])


def read_fallback(run, path: files.Path, labels: np.ndarray) -> RegionCodes:
  """Codes `[L, 512]` of the fallback image of an input.

  Args:
    run: the run.
    path: path of the image.
    labels: the input, which is also the label map of the image.
  """
  image = pictures.resize(pictures.read_picture(path), labels.shape)
  return run.encode(image, labels)


def read_region(run, region: Region) -> RegionCodes:
  """Reads the codes of a `Region`.

  Raises:
    UserError: a file cannot be read, or there is no code for the label.
  """
  if not region.labels:
    codes = codes_lib.read(files.path(region.image), *run.code_shape)
  else:
    image = pictures.fit(pictures.read_picture(region.image), run.config.data.resize)
    codes = run.encode(image, read_labels(run, files.path(region.labels), image))
  if not 0 <= region.label < len(codes.valid):
    raise DataError(
      f'--region {region.label}: there is no such label: labels are 0 to {len(codes.valid) - 1}'
    )
  if not codes.valid[region.label]:
    raise DataError(
      f'--region {region.label}: {shown(region.image)} has no code for this label: choose an image '
      'that has'
    )
  return codes


class Encoder:
  """Encoder of images without a trained run.

  Attributes:
    labels: reader of label maps.
    code_shape: shape of a code in a file, `(L, 512)`.
    code_digest: codes with the same digest are compatible.
  """

  method = 'superstylenet'

  def __init__(self, labels: Labels, size: int):
    self.labels = labels
    self._extractor = extraction.Extractor(labels.classes, size)
    self.code_shape = (labels.classes, CODE_SIZE)
    self.code_digest = code_digest(labels.classes, size)

  def encode(self, images: np.ndarray, labels: np.ndarray | None = None) -> RegionCodes:
    """Codes `[L, 512]` of an image, uint8 `[H, W, 3]`, with its label map; or of several images.

    Raises:
      DataError: there is no label map.
    """
    if labels is None:
      raise DataError('codes of regions need the label map of the image: give --labels')
    return self._extractor.all(images, labels)

  def pack(self, code: RegionCodes) -> np.ndarray:
    """Converts a code to an array for a file; see `codes.pack`."""
    return codes_lib.pack(code)

  def unpack(self, array: np.ndarray) -> RegionCodes:
    """Converts an array from a file to a code; see `codes.unpack`."""
    return codes_lib.unpack(array, *self.code_shape)


def code_digest(num_labels: int, size: int) -> str:
  """Settings that codes depend on: version of the extraction, number of labels, size."""
  return f'spse-{extraction.VERSION}-labels{num_labels}-size{size}'


def encoder(classes: int = 0, palette: str = 'index', size: int = extraction.SIZE) -> Encoder:
  """Creates an encoder without a run, for `step-jax codes`.

  Args:
    classes: number of labels.
    palette: how label maps encode classes, see `data.labels`.
    size: side of the squares that images are resized to, px.

  Raises:
    DataError: the number of labels is missing.
  """
  if not classes:
    raise DataError('--classes: give the number of labels of the label maps')
  return Encoder(Labels(palette, classes), size)
