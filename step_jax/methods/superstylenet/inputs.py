"""Files that commands are given: label maps, regions of other images, codes without a run."""

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


def read_source(run, path: files.Path, half: str) -> tuple[np.ndarray, np.ndarray]:
  """A label map to draw, uint8 `[H, W]`, and an image of it to show.

  Args:
    run: the run, which says how label maps are read.
    path: of the file.
    half: `left` or `right` where the map is that half of an A|B image, else empty.
  """
  settings = run.config.data
  labels = Labels.of(settings)
  if half:
    image = pictures.read_picture(path)
    middle = image.shape[1] // 2
    image = image[:, :middle] if half == 'left' else image[:, middle:]
    labels = labels.check(labels.from_image(image, shown(str(path))), shown(str(path)))
  else:
    labels = labels.read(path)
  labels = pictures.fit(labels, settings.resize)
  return labels, gallery.shown(labels)


def read_labels(run, path: files.Path, image: np.ndarray) -> np.ndarray:
  """The label map of an image, uint8 `[H, W]`, at the image's size.

  Args:
    run: a run, or an `Encoder`, which says how label maps are read.
    path: of the file.
    image: uint8 `[H, W, 3]`.
  """
  return pictures.resize(run.labels.read(path), image.shape[:2])


def read_fallback(run, path: files.Path, labels: np.ndarray) -> RegionCodes:
  """The codes `[L, 512]` of the image of an input.

  Args:
    run: the run.
    path: of the image.
    labels: the input, its label map.
  """
  image = pictures.resize(pictures.read_picture(path), labels.shape)
  return run.encode(image, labels)


def read_region(run, region: Region) -> RegionCodes:
  """The codes that a `Region` names.

  Raises:
    UserError: a file cannot be read, or there is no code for that label.
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
  """Codes of images without a trained run.

  Attributes:
    labels: how label maps are read.
    code_shape: of the array that stands for a code in a file, `(L, 512)`.
    code_digest: codes of the same digest can be used for each other.
  """

  method = 'superstylenet'

  def __init__(self, labels: Labels, size: int):
    self.labels = labels
    self._extractor = extraction.Extractor(labels.classes, size)
    self.code_shape = (labels.classes, CODE_SIZE)
    self.code_digest = code_digest(labels.classes, size)

  def encode(self, images: np.ndarray, labels: np.ndarray | None = None) -> RegionCodes:
    """Codes `[L, 512]` of an image, uint8 `[H, W, 3]`, with its label map; or of several.

    Raises:
      DataError: there is no label map.
    """
    if labels is None:
      raise DataError('codes of regions need the label map of the image: give --labels')
    return self._extractor.all(images, labels)

  def pack(self, code: RegionCodes) -> np.ndarray:
    """A code as an array for a file; see `codes.pack`."""
    return codes_lib.pack(code)

  def unpack(self, array: np.ndarray) -> RegionCodes:
    """The code that an array of a file stands for; see `codes.unpack`."""
    return codes_lib.unpack(array, *self.code_shape)


def code_digest(num_labels: int, size: int) -> str:
  """What codes depend on besides images: the extraction, the number of labels, the resizing."""
  return f'spse-{extraction.VERSION}-labels{num_labels}-size{size}'


def encoder(classes: int = 0, palette: str = 'index', size: int = extraction.SIZE) -> Encoder:
  """Makes codes of images without a run, for `step-jax codes`.

  Args:
    classes: number of labels.
    palette: how label maps show them, see `data.labels`.
    size: side of the squares that images are resized to before, px.

  Raises:
    DataError: the number of labels is missing.
  """
  if not classes:
    raise DataError('--classes: give the number of labels of the label maps')
  return Encoder(Labels(palette, classes), size)
