"""Translation of picture files."""

from collections.abc import Sequence
import os

import numpy as np

from step_jax import files as files_lib
from step_jax.data import pairs, pictures
from step_jax.errors import DataError
from step_jax.infer import gallery
from step_jax.methods.step import run as translator_lib


def translate(
  workdir: str | os.PathLike,
  inputs: Sequence[str | os.PathLike],
  out: str | os.PathLike,
  *,
  styles: Sequence[str | os.PathLike] | None = None,
  interpolate: Sequence[str | os.PathLike] | None = None,
  sample: int | None = None,
  steps: int = 8,
  seed: int = 0,
  sampler: str = '',
  side_by_side: bool = False,
  which: str = 'latest',
) -> list[files_lib.Path]:
  """Translates files, and writes one PNG a translation and `grid.png`.

  Pictures are scaled as those were that the run was trained on (`data.resize`).

  Args:
    workdir: of a trained run.
    inputs: source pictures, or folders of them.
    out: folder for the results; made where missing.
    styles: pictures whose styles to use; or
    interpolate: two pictures, from whose styles to blend in `steps`; or
    sample: how many styles to draw, by `sampler` and `seed`.
    steps, seed, sampler: see above.
    side_by_side: whether files are A|B pairs, of which the source half is translated and the target
      half gives the style.
    which: `latest` or `best` checkpoint.

  Returns:
    The files written but for the grid.

  Raises:
    UserError: the run or a picture cannot be used.
  """
  files = _expand(inputs)
  translator = translator_lib.load(workdir, which)
  config = translator.config
  halves = ('left', 'right') if config.data.direction == 'AtoB' else ('right', 'left')

  def read(path, half):
    image = pictures.read_picture(path)
    if side_by_side:
      middle = image.shape[1] // 2
      image = image[:, :middle] if half == 'left' else image[:, middle:]
    return pairs.fit(image, config.data.resize)

  sources = [read(path, halves[0]) for path in files]
  if sample is not None:
    header, codes = [], translator.draw(sample, seed, sampler)
  else:
    header = [read(path, halves[1]) for path in styles or interpolate]
    codes = np.stack([translator.encode(picture) for picture in header])
    if interpolate:
      header = []
      codes = np.stack([codes[0] + t * (codes[1] - codes[0]) for t in np.linspace(0, 1, steps)])
  rows = [[source, *(translator.translate(source, z) for z in codes)] for source in sources]
  out = files_lib.path(out)
  files_lib.make_folder(out)
  written = []
  for path, (_, *results) in zip(files, rows, strict=True):
    for i, result in enumerate(results):
      name = f'{path.stem}.png' if len(results) == 1 else f'{path.stem}_{i:02d}.png'
      written.append(out / name)
      pictures.write_png(written[-1], result)
  if header:
    rows = [[np.full_like(header[0], 255), *header], *rows]
  pictures.write_png(out / 'grid.png', gallery.grid(rows))
  return written


def _expand(inputs: Sequence[str | os.PathLike]) -> list[files_lib.Path]:
  """Files and the pictures of folders, in order."""
  found = []
  for path in map(files_lib.path, inputs):
    if path.is_dir():
      inside = pictures.find(path.iterdir(), path)
      if not inside:
        raise DataError(f'{path}: holds no png, jpg or webp pictures')
      found += inside
    else:
      found.append(path)
  return found
