"""The functions behind the page: a run, its images, and images of the user."""

from collections.abc import Sequence
import pathlib

import numpy as np

from step_jax import methods
from step_jax.data import pictures
from step_jax.errors import DataError, RunError
from step_jax.methods.step import run as step_run
from step_jax.methods.step import samplers
from step_jax.methods.step.page import codes, drawing, map_picture, run_pictures

# Larger images are scaled down to this longer side, px, to bound memory.
LONGEST_SIDE = 1024


class Studio:
  """A trained run with everything that the page needs.

  Images are uint8 `[H, W, 3]`, style codes float32 `[Z]`.

  Attributes:
    workdir: work directory of the run.
    translator: the run.
    pictures: images of its data set.
    sliders: one slider per dimension of a code.
    style_map: map of the styles of the run; None if it has fewer than three.
    first_styles: indices of the two initial styles, which differ strongly; None if the run has no
      styles.
    palette: colours for drawing inputs; empty if the inputs of the run are not drawings.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    translator: step_run.Translator,
    shown: run_pictures.RunPictures,
  ):
    self.workdir = workdir
    self.translator = translator
    self.pictures = shown
    train_codes = shown.codes if len(shown.codes) else np.zeros((1, self.z_dim), np.float32)
    self.sliders = codes.Sliders.of(train_codes)
    self.style_map = None
    if len(shown.codes) > 2 and self.z_dim:
      style_map = codes.StyleMap.of(shown.codes)
      self.style_map = map_picture.MapPicture.of(style_map, shown.thumbnails)
    self.first_styles = (0, codes.farthest(shown.codes, 0)) if len(shown.codes) else None
    self.palette = drawing.palette(shown.inputs)
    self._middle = train_codes.mean(axis=0)
    self._compiled: set[tuple] = set()

  @property
  def z_dim(self) -> int:
    return self.translator.config.model.z_dim

  @property
  def input_size(self) -> tuple[int, int]:
    """Height and width of the inputs of the run."""
    if self.pictures.inputs:
      return self.pictures.inputs[0].shape[:2]
    return tuple(self.translator.config.data.crop)

  def first_codes(self) -> tuple[np.ndarray, np.ndarray]:
    """The two initial styles."""
    if self.first_styles is None:
      return self._middle, self._middle
    first, second = self.pictures.codes[list(self.first_styles)]
    return first, second

  def read(self, path: str | pathlib.Path) -> np.ndarray:
    """Reads an image file and scales it like the images of the run, as `step-jax translate` does.

    Raises:
      DataError: it cannot be read.
    """
    try:
      image = pictures.read_picture(path)
    except DataError as error:
      # Show only the name of an upload, not its temporary folder.
      path = pathlib.Path(path)
      raise DataError(str(error).replace(str(path), path.name, 1)) from None
    image = pictures.fit(image, self.translator.config.data.resize)
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
      image = pictures.resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    return image

  def draw(self, drawn: np.ndarray | None) -> np.ndarray:
    """Converts a drawing to a source of the size of the inputs; see `drawing.finish`."""
    return drawing.finish(drawn, self.palette[0], self.input_size)

  def is_new(self, what: str, image: np.ndarray) -> bool:
    """Whether `what` (encode or translate) must be compiled for the size of an image."""
    return (what, image.shape) not in self._compiled

  def encode(self, style: np.ndarray) -> np.ndarray:
    """The code of a style image."""
    self._compiled.add(('encode', style.shape))
    return self.translator.encode(style)

  def translate(self, source: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Translates a source; the output has the same size."""
    self._compiled.add(('translate', source.shape))
    return self.translator.translate(source, code)

  def new_styles(self, count: int, seed: int) -> np.ndarray:
    """Samples new styles `[count, Z]`; the same seed gives the same styles.

    The samples come from the sampler of the run, or, if none is stored for this encoder, from a
    Gaussian fitted to the codes that the demo has encoded.

    Raises:
      RunError: the run has no styles, or its data is missing and cannot be encoded.
    """
    if self.translator.samplers or not self.z_dim:
      return self.translator.draw(count, seed)
    if not len(self.pictures.codes):
      raise RunError(self.translator.note)
    return samplers.gaussian(self.pictures.codes).draw(count, seed)

  def in_styles(self, source: np.ndarray, several: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Translates a source into several styles."""
    return [self.translate(source, code) for code in several]

  def warm_up(self) -> None:
    """Compiles for the size of the images of the run, so that the first click does not wait."""
    blank = np.zeros((*self.input_size, 3), np.uint8)
    self.translate(blank, self.encode(blank))


def open_run(workdir: str | pathlib.Path, which: str = 'latest') -> Studio:
  """Opens a trained run with its images.

  Args:
    workdir: work directory of the run, or the folder of one of its stages.
    which: `latest` or `best` checkpoint.

  Raises:
    RunError: no trained stage can translate yet.
  """
  translator = methods.load(workdir, which)
  return Studio(workdir, translator, run_pictures.load(translator))
