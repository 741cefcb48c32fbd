"""Names of files: what is read, what is written, and that no input is replaced."""

from collections.abc import Hashable, Sequence
import os
import unicodedata

from step_jax import files
from step_jax.data import pictures
from step_jax.errors import DataError, shown


def expand(inputs: Sequence[files.Path]) -> list[files.Path]:
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


def plan(
  sources: Sequence[files.Path],
  out: files.Path,
  overview: str,
  count: int = 1,
  suffix: str = '.png',
) -> list[list[files.Path]]:
  """Paths of the results of each source.

  Args:
    sources: files.
    out: folder of the results.
    overview: name of the file there that is about all of them.
    count: results of each source.
    suffix: of the results.

  Raises:
    DataError: two results, or one and the overview, would have one name. Names that differ in case
      alone are one on some file systems, as are the two ways to encode an accent.
  """
  taken: dict[str, files.Path | None] = {overview: None}
  outputs = []
  for source in sources:
    ends = [''] if count == 1 else [f'_{i:02d}' for i in range(count)]
    outputs.append([out / f'{source.stem}{end}{suffix}' for end in ends])
    name = outputs[-1][0].name
    key = unicodedata.normalize('NFC', name).casefold()
    if key in taken:
      other = taken[key]
      what = f'that of {shown(str(other))}' if other else 'the overview of all results'
      raise DataError(
        f'{shown(str(source))}: its result and {what} would both be {shown(name)} in '
        f'{shown(str(out))}: rename it, or use a separate command with another --out'
      )
    taken[key] = source
  return outputs


def check_kept(
  inputs: Sequence[files.Path], out: files.Path, outputs: Sequence[files.Path]
) -> None:
  """Makes sure that no output takes the place of an input, and that `out` can be a folder.

  Raises:
    DataError: one does, be it by another path, a link or another case; an input is missing; or
      `out` is a file.
  """
  kept = {}
  for path in inputs:
    identity = _identity(path)
    if identity is None:
      raise DataError(f'{shown(str(path))}: no such picture')
    kept[identity] = path
  for path in [out, *outputs]:
    replaced = kept.get(_identity(path))
    if replaced is not None:
      raise DataError(
        f'{shown(str(path))}: is the input {shown(str(replaced))}, which results would replace: '
        'choose another --out'
      )
  if not files.in_bucket(out) and out.exists() and not out.is_dir():
    raise DataError(f'{shown(str(out))}: is a file: give --out a folder')


def _identity(path: files.Path) -> Hashable:
  """Equal for all paths and links to one file or folder; None where there is none."""
  if files.in_bucket(path):
    return os.fspath(path)
  try:
    status = path.stat()
  except (FileNotFoundError, NotADirectoryError):
    return None
  return status.st_dev, status.st_ino
