"""Reads inputs and styles of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from step_jax import files, methods
from step_jax.data import pictures
from step_jax.errors import ConfigError, DataError, RunError, shown
from step_jax.infer import codes as codes_lib
from step_jax.infer import options as options_lib

# Placeholder image for codes read from files and for empty cells.
WHITE = np.full((1, 1, 3), 255, np.uint8)


class Reader:
  """Reads the files of a command.

  Args:
    run: a run, or an encoder without a run, which gets images in their own size.
    given: options of the command.
    side_by_side: whether files are A|B pairs: one half is the source, the other one the style.

  Raises:
    ConfigError: `side_by_side` without a run, whose configuration says which half is the source.
  """

  def __init__(self, run: methods.Encoder, given: options_lib.Given, side_by_side: bool):
    self._run, self._given = run, given
    config = getattr(run, 'config', None)
    if side_by_side and config is None:
      raise ConfigError('--side-by-side: needs a run (--workdir), which defines the halves')
    self._resize = config.data.resize if config else 0
    self._halves = ('', '')
    if side_by_side:
      forward = config.data.direction == 'AtoB'
      self._halves = ('left', 'right') if forward else ('right', 'left')
    self._read_source = methods.METHODS[run.method].hook('read_source')

  def source(self, path: files.Path) -> tuple[Any, np.ndarray]:
    """Reads an input for `Run.translate`, and an image of it for display, uint8 `[H, W, 3]`."""
    # Tiled translation keeps the size of the image.
    resize = 0 if 'tile' in self._given.of('translate') else self._resize
    if self._read_source:
      return self._read_source(self._run, path, self._halves[0], resize)
    image = read_image(path, self._halves[0], resize)
    return image, image

  def files_of_styles(self, paths: Sequence[files.Path]) -> list[options_lib.OwnFiles]:
    """Files of the options of `encode` for each style; none for codes."""
    images = [path for path in paths if not codes_lib.is_code(path)]
    of_images = iter(self._given.files_of('encode', images))
    return [() if codes_lib.is_code(path) else next(of_images) for path in paths]

  def style(self, path: files.Path, own_files: options_lib.OwnFiles) -> tuple[Any, np.ndarray]:
    """Reads a style, from an image or a code file.

    Returns:
      Its code, and an image for display, uint8 `[H, W, 3]`.

    Raises:
      UserError: the file cannot be read, or the image has no code.
    """
    if codes_lib.is_code(path):
      return codes_lib.read(self._run, path), WHITE
    image = read_image(path, self._halves[1], self._resize)
    arguments = self._given.of('encode') | options_lib.read(self._run, own_files, image)
    try:
      return self._run.encode(image, **arguments), image
    except (DataError, RunError) as error:
      raise type(error)(f'{shown(str(path))}: {error}') from None


def read_image(path: files.Path, half: str, resize: int) -> np.ndarray:
  """Reads an image, uint8 `[H, W, 3]`.

  Args:
    path: image file.
    half: `left` or `right` half of an A|B image; empty for the whole image.
    resize: pixels of the shorter side; 0 keeps the size.

  Raises:
    DataError: the file cannot be read, or is too narrow to have two halves.
  """
  image = pictures.read_picture(path)
  if half:
    middle = image.shape[1] // 2
    if not middle:
      raise DataError(f'{shown(str(path))}: is 1 px wide, which has no two halves: replace it')
    image = image[:, :middle] if half == 'left' else image[:, middle:]
  return pictures.fit(image, resize)
