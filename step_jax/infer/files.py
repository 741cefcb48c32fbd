"""Translation of picture files."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
import itertools
import os
from typing import Any
import unicodedata

import numpy as np

from step_jax import files as files_lib
from step_jax import methods
from step_jax.data import pairs, pictures
from step_jax.errors import ConfigError, DataError, shown
from step_jax.infer import gallery

GRID = 'grid.png'


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
  side_by_side: bool = False,
  which: str = 'latest',
  options: Mapping[str, Any] | None = None,
) -> list[files_lib.Path]:
  """Translates files, and writes one PNG per translation and `grid.png`.

  Pictures are scaled as those were that the run was trained on (`data.resize`).

  `NAME.jpg` becomes `NAME.png`, or `NAME_00.png`, `NAME_01.png`, … where there are several styles.
  Files of these names in `out` are replaced, so that a command can be repeated; no input ever is.
  Each result is written as soon as it is made. The grid comes last. It shows whole images where
  that takes no more than 100 MB of memory, else thumbnails, and the first rows if there are
  thousands.

  Args:
    workdir: of a trained run.
    inputs: source pictures, or folders of them. Hidden files of a folder are left out.
    out: folder for the results; made where missing.
    styles: pictures whose styles to use; or
    interpolate: two pictures, from whose styles to blend in `steps`; or
    sample: how many styles to draw, by `seed`. Methods that have a style of their own need none of
      the three.
    steps, seed: see above.
    side_by_side: whether files are A|B pairs, of which the source half is translated and the target
      half gives the style.
    which: `latest` or `best` checkpoint.
    options: of the method, by the names in `Method.options`.

  Returns:
    The files written but for the grid.

  Raises:
    UserError: the run or a picture cannot be used; two results would have one name; or a result
      would replace an input. Names are checked before anything is written.
  """
  inputs, out = [files_lib.path(path) for path in inputs], files_lib.path(out)
  sources = _expand(inputs)
  exemplars = [files_lib.path(path) for path in styles or interpolate or ()]
  count = len(styles) if styles else steps if interpolate else sample or 1
  outputs = _plan(sources, count, out)
  _check_kept([*inputs, *sources, *exemplars], [out, out / GRID, *itertools.chain(*outputs)])
  if not files_lib.in_bucket(out) and out.exists() and not out.is_dir():
    raise DataError(f'{shown(str(out))}: is a file: give --out a folder')
  run = methods.load(workdir, which)
  options = method_options(run.method, options or {})
  if methods.METHODS[run.method].needs_code and not (styles or interpolate or sample):
    raise ConfigError(
      '--style, --interpolate or --sample is needed: this run has no style of its own'
    )
  config = run.config
  halves = ('left', 'right') if config.data.direction == 'AtoB' else ('right', 'left')

  def read(path, half):
    image = pictures.read_picture(path)
    if side_by_side:
      middle = image.shape[1] // 2
      if not middle:
        raise DataError(f'{shown(str(path))}: is 1 px wide, which has no two halves: replace it')
      image = image[:, :middle] if half == 'left' else image[:, middle:]
    return pairs.fit(image, config.data.resize)

  grid = gallery.Grid(len(sources) + bool(styles), count + 1)
  codes, header = [], []
  for path in exemplars:
    image = read(path, halves[1])
    try:
      codes.append(run.encode(image))
    except DataError as error:
      raise DataError(f'{shown(str(path))}: {error}') from None
    header.append(grid.thumbnail(image))
  if sample is not None:
    codes = run.draw(sample, seed, **options)
  elif interpolate:
    codes = [codes[0] + t * (codes[1] - codes[0]) for t in np.linspace(0, 1, steps)]
  elif styles:
    grid.add([np.full((1, 1, 3), 255, np.uint8), *header])
  else:
    codes = [None]
  files_lib.make_folder(out)
  for path, results in zip(sources, outputs, strict=True):
    source = read(path, halves[0])
    grid.add(itertools.chain([source], _write(run, source, codes, results)))
  pictures.write_png(out / GRID, grid.image())
  return list(itertools.chain(*outputs))


def method_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
  """Those options of `translate` that differ from their defaults.

  Raises:
    ConfigError: the method has no such option.
  """
  options = {option.name.replace('-', '_'): option for option in methods.METHODS[method].options}
  for name in given:
    if name not in options:
      raise ConfigError(f'--{name.replace("_", "-")}: is no option of {method} runs')
  return {name: value for name, value in given.items() if value != options[name].default}


def _write(
  run: methods.Run,
  source: np.ndarray,
  codes: Sequence[Any],
  paths: Sequence[files_lib.Path],
) -> Iterator[np.ndarray]:
  """Yields the translation of a source in each style, once it is written to its path."""
  for code, path in zip(codes, paths, strict=True):
    result = run.translate(source, code)
    pictures.write_png(path, result)
    yield result


def _expand(inputs: Sequence[files_lib.Path]) -> list[files_lib.Path]:
  """Files, and the pictures of folders but hidden ones, in order."""
  paths = []
  for path in inputs:
    if path.is_dir():
      unhidden = (file for file in path.iterdir() if not file.name.startswith('.'))
      inside = [file for file in pictures.find(unhidden, path) if file.is_file()]
      if not inside:
        raise DataError(f'{path}: holds no png, jpg or webp pictures')
      paths += inside
    else:
      paths.append(path)
  return paths


def _plan(
  sources: Sequence[files_lib.Path], count: int, out: files_lib.Path
) -> list[list[files_lib.Path]]:
  """Paths of the results of each source, in `count` styles.

  Raises:
    DataError: two results, or one and the grid, would have one name. Names that differ in case
      alone are one on some file systems, as are the two ways to encode an accent.
  """
  taken: dict[str, files_lib.Path | None] = {GRID: None}
  outputs = []
  for source in sources:
    ends = [''] if count == 1 else [f'_{i:02d}' for i in range(count)]
    outputs.append([out / f'{source.stem}{end}.png' for end in ends])
    name = outputs[-1][0].name
    key = unicodedata.normalize('NFC', name).casefold()
    if key in taken:
      other = taken[key]
      what = f'that of {shown(str(other))}' if other else 'the overview of all results'
      raise DataError(
        f'{shown(str(source))}: its result and {what} would both be {shown(name)} in '
        f'{shown(str(out))}: rename it, or translate it by a command with another --out'
      )
    taken[key] = source
  return outputs


def _check_kept(inputs: Sequence[files_lib.Path], outputs: Sequence[files_lib.Path]) -> None:
  """Makes sure that no output takes the place of an input.

  Raises:
    DataError: one does, be it by another path, a link or another case; or an input is missing.
  """
  kept = {}
  for path in inputs:
    identity = _identity(path)
    if identity is None:
      raise DataError(f'{shown(str(path))}: no such picture')
    kept[identity] = path
  for path in outputs:
    replaced = kept.get(_identity(path))
    if replaced is not None:
      raise DataError(
        f'{shown(str(path))}: is the input {shown(str(replaced))}, which results would replace: '
        'choose another --out'
      )


def _identity(path: files_lib.Path) -> Hashable:
  """Equal for all paths and links to one file or folder; None where there is none."""
  if files_lib.in_bucket(path):
    return os.fspath(path)
  try:
    status = path.stat()
  except (FileNotFoundError, NotADirectoryError):
    return None
  return status.st_dev, status.st_ino
