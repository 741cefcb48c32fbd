"""Paths of inputs and outputs, and checks that no output overwrites an input."""

from collections.abc import Hashable, Sequence
import os
import unicodedata

from step_jax import files
from step_jax.data import pictures
from step_jax.errors import DataError, shown


def expand(inputs: Sequence[files.Path]) -> list[files.Path]:
  """The given files in order, with each folder replaced by its images that are not hidden."""
  paths = []
  for path in inputs:
    if path.is_dir():
      unhidden = (file for file in path.iterdir() if not file.name.startswith('.'))
      inside = [file for file in pictures.find(unhidden, path) if file.is_file()]
      if not inside:
        raise DataError(f'{path}: holds no png, jpg or webp images')
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
    sources: source files.
    out: folder of the results.
    overview: name of the file in `out` that summarizes all results.
    count: number of results per source.
    suffix: file suffix of the results.

  Raises:
    DataError: two results, or a result and the overview, would have the same name. Names that
      differ only in case or in Unicode normalization count as equal, as on some file systems.
  """
  sources_by_name: dict[str, files.Path | None] = {overview: None}
  outputs = []
  for source in sources:
    ends = [''] if count == 1 else [f'_{i:02d}' for i in range(count)]
    outputs.append([out / f'{source.stem}{end}{suffix}' for end in ends])
    name = outputs[-1][0].name
    key = unicodedata.normalize('NFC', name).casefold()
    if key in sources_by_name:
      other = sources_by_name[key]
      what = f'that of {shown(str(other))}' if other else 'the overview of all results'
      raise DataError(
        f'{shown(str(source))}: its result and {what} would both be {shown(name)} in '
        f'{shown(str(out))}: rename it, or use a separate command with another --out'
      )
    sources_by_name[key] = source
  return outputs


def check_kept(
  inputs: Sequence[files.Path], out: files.Path, outputs: Sequence[files.Path]
) -> None:
  """Checks that no output overwrites an input, and that `out` can be a folder.

  Raises:
    DataError: an output is an input, perhaps by another path, by a link or in another case; an
      input is missing; or `out` is a file.
  """
  kept = {}
  for path in inputs:
    identity = _identity(path)
    if identity is None:
      raise DataError(f'{shown(str(path))}: no such image')
    kept[identity] = path
  for path in [out, *outputs]:
    replaced = kept.get(_identity(path))
    if replaced is not None:
      raise DataError(
        f'{shown(str(path))}: is the input {shown(str(replaced))}, which results would overwrite: '
        'choose another --out'
      )
  if not files.in_bucket(out) and out.exists() and not out.is_dir():
    raise DataError(f'{shown(str(out))}: is a file: give --out a folder')


def _identity(path: files.Path) -> Hashable:
  """A key that is equal for all paths and links to a file or folder; None if it does not exist."""
  if files.in_bucket(path):
    return os.fspath(path)
  try:
    status = path.stat()
  except (FileNotFoundError, NotADirectoryError):
    return None
  return status.st_dev, status.st_ino
