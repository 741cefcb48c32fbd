"""Translation of image files by any trained run."""

from collections.abc import Iterator, Mapping, Sequence
import itertools
import os
from typing import Any

import jax
import numpy as np

from step_jax import files as files_lib
from step_jax import methods
from step_jax.data import pictures
from step_jax.errors import ConfigError, shown
from step_jax.infer import gallery, paths, reading
from step_jax.infer import options as options_lib

GRID = 'grid.png'
# Duration of a video frame.
_FRAME_SECONDS = 1 / 12


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
  video: str | os.PathLike | None = None,
) -> list[files_lib.Path]:
  """Translates files, and writes one PNG per translation and `grid.png`.

  Images are resized as in training (`data.resize`).

  `NAME.jpg` becomes `NAME.png`, or `NAME_00.png`, `NAME_01.png`, … if there are several styles.
  Existing files of these names in `out` are overwritten; inputs never are. Each result is written
  as soon as it is ready, the grid last. The grid shows full-size images if they fit in 100 MB of
  memory, otherwise thumbnails. With thousands of inputs it shows only the first rows.

  Args:
    workdir: work directory of a trained run.
    inputs: source images, or folders of images. Hidden files in a folder are skipped.
    out: folder for the results; created if missing.
    styles: style images, or codes written by `step-jax codes` (`.npy`). Give at most one of
      `styles`, `interpolate` and `sample`; methods with a default style need none of them.
    interpolate: two style images or codes to interpolate between.
    sample: number of styles to sample.
    steps: number of styles of an interpolation.
    seed: random seed of `sample`.
    side_by_side: whether files are A|B pairs; the source half is translated, and the target half
      gives the style.
    which: `latest` or `best` checkpoint.
    options: flags of the method, with underscores -> values.
    video: path (`.webp`) of an animation of the interpolation, forwards and backwards; needs
      `interpolate` and exactly one source.

  Returns:
    Paths of the translations, without the grid and the video.

  Raises:
    UserError: the run or an image cannot be used; two results would have the same name; or a result
      would overwrite an input. Names are checked before anything is written.
  """
  inputs, out = [files_lib.path(path) for path in inputs], files_lib.path(out)
  sources = paths.expand(inputs)
  exemplars = [files_lib.path(path) for path in styles or interpolate or ()]
  count = len(styles) if styles else steps if interpolate else sample or 1
  outputs = paths.plan(sources, out, GRID, count)
  written = [out / GRID, *itertools.chain(*outputs)]
  if video is not None:
    video = files_lib.path(video)
    _check_video(video, len(sources), bool(interpolate))
    written.append(video)
  paths.check_kept([*inputs, *sources, *exemplars], out, written)
  run = methods.load(workdir, which)
  given = options_lib.Given(run.method, 'translate', options or {})
  if methods.METHODS[run.method].needs_code and not (styles or interpolate or sample):
    raise ConfigError('--style, --interpolate or --sample is needed: this run has no default style')
  if sample is None:
    given.refuse('draw', 'applies only to sampled styles: give it with --sample')
  if not interpolate:
    given.refuse('interpolate', 'applies only to interpolation: give --interpolate A B too')
  reader = reading.Reader(run, given, side_by_side)
  of_sources, of_styles = given.files_of('translate', sources), reader.files_of_styles(exemplars)
  paths.check_kept([path for own in [*of_sources, *of_styles] for _, path in own], out, written)
  grid = gallery.Grid(len(sources) + bool(styles), count + 1)
  codes, header = [], []
  for path, own in zip(exemplars, of_styles, strict=True):
    code, picture = reader.style(path, own)
    codes.append(code)
    header.append(grid.thumbnail(picture))
  if sample is not None:
    drawn = run.draw(sample, seed, **given.of('draw'))
    codes = [jax.tree.map(lambda leaf, i=i: leaf[i], drawn) for i in range(sample)]
  elif interpolate:
    chosen = given.of('interpolate')
    codes = [_between(*codes, share, **chosen) for share in np.linspace(0, 1, steps)]
  elif styles:
    grid.add([reading.WHITE, *header])
  else:
    codes = [None]
  files_lib.make_folder(out)
  for path, own, results in zip(sources, of_sources, outputs, strict=True):
    source, picture = reader.source(path)
    arguments = given.of('translate') | options_lib.read(run, own, source)
    translations = _write(run, source, codes, results, arguments)
    if video is not None:
      frames = list(translations)
      files_lib.make_folder(video.parent)
      pictures.write_video(video, [*frames, *frames[-2:0:-1]], _FRAME_SECONDS)
      translations = iter(frames)
    grid.add(itertools.chain([picture], translations))
  pictures.write_png(out / GRID, grid.image())
  return list(itertools.chain(*outputs))


def _check_video(video: files_lib.Path, sources: int, interpolating: bool) -> None:
  """Checks the options of a video.

  Raises:
    ConfigError: a video cannot be made with them.
  """
  name = f'--video {shown(str(video))}'
  if not interpolating:
    raise ConfigError(f'{name}: shows an interpolation: give --interpolate A B too')
  if video.suffix.lower() != '.webp':
    raise ConfigError(
      f'{name}: only animated WebP can be written: give a name with the suffix .webp'
    )
  if sources != 1:
    raise ConfigError(f'{name}: shows exactly one input, not {sources}: give one')


def _between(a: Any, b: Any, share: float, **chosen) -> Any:
  """Linear interpolation from code `a` (`share` 0) to code `b` (`share` 1)."""
  return a.interpolate(b, share, **chosen) if hasattr(a, 'interpolate') else a + share * (b - a)


def _write(
  run: methods.Run,
  source: Any,
  codes: Sequence[Any],
  results: Sequence[files_lib.Path],
  arguments: Mapping[str, Any],
) -> Iterator[np.ndarray]:
  """Writes the translation of a source in each style to its path, and yields it."""
  for code, path in zip(codes, results, strict=True):
    result = run.translate(source, code, **arguments)
    pictures.write_png(path, result)
    yield result
