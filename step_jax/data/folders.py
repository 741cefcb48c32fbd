"""Folders of pictures as examples: which files belong together, and to which split.

An example has a name and one or two pictures, `A` and `B`. Which of them is the source is decided
when training reads them (`config.data.direction`), so that a prepared set serves both directions.
"""

from collections.abc import Callable, Collection, Mapping
import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from step_jax import files as files_lib
from step_jax.data import pictures, published
from step_jax.errors import DataError

LAYOUTS = ('auto', 'side_by_side', 'two_folders', 'unpaired')
_SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}
_PAIR_NAMES = (('A', 'B'), ('source', 'target'), ('input', 'output'))


@dataclasses.dataclass(frozen=True)
class Example:
  """One pair (or one lone picture): its name, unique in its split, and how to get its pictures.

  `load()` returns `{'A': …, 'B': …}` (or `{'A': …}`), uint8 RGB `[H, W, 3]`; it may raise
  DataError. `content` identifies what `load()` returns; empty: a hash of the pixels does.
  """

  name: str
  load: Callable[[], Mapping[str, np.ndarray]]
  content: str = ''


@dataclasses.dataclass(frozen=True)
class PictureSet:
  """Examples by split, and a fingerprint that changes when they do.

  `held_out` tells whether the validation split was chosen by `hold_out`.
  """

  layout: str
  splits: Mapping[str, list[Example]]
  fingerprint: str
  held_out: bool = False


def scan(folder: str | os.PathLike, layout: str = 'auto', val_fraction: float = 0.1) -> PictureSet:
  """Finds the examples of a folder without opening a picture.

  Layouts (`docs/data.md` draws each): `side_by_side`, pictures whose left half is A and right half
  B; `two_folders`, `A/` and `B/` (or `source/` and `target/`, `trainA/` and `trainB/`) paired by
  file stem; `unpaired`, lone pictures. `auto` takes `two_folders` where such folders exist, else
  `side_by_side`. Splits are folders `train`, `val`, `test`; without `val`, about `val_fraction` of
  the training pictures are held out, see `hold_out`.

  Raises:
    DataError: no such folder, no pictures, or names without a partner.
  """
  folder = files_lib.path(folder).expanduser()
  if layout not in LAYOUTS:
    raise DataError(f'data layout {layout!r} is unknown: use one of {", ".join(LAYOUTS)}')
  if not folder.is_dir():
    advice = published.remedy(folder) or 'give the folder that holds your images'
    raise DataError(f'{folder}: no such folder: {advice}')
  sides = _find_sides(folder)
  if layout == 'auto':
    layout = 'two_folders' if sides else 'side_by_side'
  if layout == 'two_folders':
    if not sides:
      raise DataError(
        f'{folder}: no two folders of pictures here: expected A/ and B/, source/ and target/, '
        'or trainA/ and trainB/'
      )
    found = {split: _pair_files(a, b) for split, (a, b) in sides.items()}
  else:
    roots = _split_folders(folder) or {'train': folder}
    found = {split: [(file,) for file in _picture_files(root)] for split, root in roots.items()}
    for split, files in found.items():
      if not files:
        raise DataError(f'{roots[split]}: holds no png, jpg or webp pictures')
  if 'train' not in found:
    raise DataError(f'{folder}: holds {", ".join(found)} but no train: add train pictures')
  named = {
    split: {files[0].relative_to(folder).as_posix(): files for files in tuples}
    for split, tuples in found.items()
  }
  held_out = 'val' not in named
  if held_out:
    train = named['train']
    held = hold_out(train, val_fraction)
    named['train'] = {name: files for name, files in train.items() if name not in held}
    named['val'] = {name: files for name, files in train.items() if name in held}
  loader = {'side_by_side': _load_halves, 'two_folders': _load_two, 'unpaired': _load_one}[layout]
  splits = {
    split: [Example(name, functools.partial(loader, *files)) for name, files in examples.items()]
    for split, examples in named.items()
  }
  return PictureSet(layout, splits, _fingerprint(folder, named, layout), held_out)


def _picture_files(folder: files_lib.Path) -> list[files_lib.Path]:
  """All pictures below `folder`, sorted by name; hidden files and folders are left out."""
  bucket = files_lib.in_bucket(folder)
  unhidden = (
    path
    for path in (files_lib.listing(folder) if bucket else folder.rglob('*'))
    if not any(part.startswith('.') for part in path.relative_to(folder).parts)
  )
  return [path for path in pictures.find(unhidden, folder) if bucket or path.is_file()]


def _split_folders(folder: files_lib.Path) -> dict[str, files_lib.Path]:
  found = {}
  for child in sorted(folder.iterdir()):
    split = _SPLITS.get(child.name.lower())
    if split and child.is_dir():
      found[split] = child
  return found


def _find_sides(folder: files_lib.Path) -> dict[str, tuple[files_lib.Path, files_lib.Path]]:
  """Finds the two folders of every split.

  These are `train/A` and `train/B`, `trainA` and `trainB`, or `A` and `B`.
  """
  sides = {}
  for a, b in _PAIR_NAMES:
    for split, root in _split_folders(folder).items():
      if (root / a).is_dir() and (root / b).is_dir():
        sides[split] = (root / a, root / b)
    for name, split in _SPLITS.items():
      if (folder / f'{name}{a}').is_dir() and (folder / f'{name}{b}').is_dir():
        sides[split] = (folder / f'{name}{a}', folder / f'{name}{b}')
    if not sides and (folder / a).is_dir() and (folder / b).is_dir():
      sides['train'] = (folder / a, folder / b)
  return sides


def _pair_files(
  a: files_lib.Path, b: files_lib.Path
) -> list[tuple[files_lib.Path, files_lib.Path]]:
  by_stem = []
  for side in (a, b):
    stems = {}
    for file in _picture_files(side):
      stem = file.relative_to(side).with_suffix('').as_posix()
      if stem in stems:
        raise DataError(f'{stems[stem]} and {file.name} have one stem: remove or rename one')
      stems[stem] = file
    if not stems:
      raise DataError(f'{side}: holds no png, jpg or webp pictures')
    by_stem.append(stems)
  for here, there, other in ((*by_stem, b), (*reversed(by_stem), a)):
    lonely = sorted(here.keys() - there.keys())
    if lonely:
      raise DataError(
        f'{here[lonely[0]]}: has no partner of that stem in {other} '
        f'({len(lonely)} such in all): add the missing pictures or remove these'
      )
  return [(by_stem[0][stem], by_stem[1][stem]) for stem in sorted(by_stem[0])]


def _load_one(path: files_lib.Path) -> dict[str, np.ndarray]:
  return {'A': pictures.read_picture(path)}


def _load_two(path_a: files_lib.Path, path_b: files_lib.Path) -> dict[str, np.ndarray]:
  return {'A': pictures.read_picture(path_a), 'B': pictures.read_picture(path_b)}


def _load_halves(path: files_lib.Path) -> dict[str, np.ndarray]:
  image = pictures.read_picture(path)
  width = image.shape[1]
  if width % 2:
    raise DataError(
      f'{path}: is {width} px wide, which has no two halves: '
      'use layout two_folders or unpaired, or mend the picture'
    )
  return {'A': image[:, : width // 2], 'B': image[:, width // 2 :]}


def hold_out(names: Collection[str], fraction: float) -> set[str]:
  """The names of the validation split: those whose hash is below a threshold.

  Each name is assigned on its own, so adding or removing others does not move it. The only
  exception keeps both splits from being empty: the name whose hash is nearest to the threshold
  then changes sides.

  Args:
    names: at least two.
    fraction: the threshold, in [0, 1]; hashes are uniform in [0, 1).

  Raises:
    DataError: there is one name only.
  """
  if len(names) < 2:
    raise DataError(
      f'{next(iter(names))}: one picture alone cannot be split into train and val: add more'
    )
  hashes = {
    name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') / 2**64
    for name in names
  }
  held = {name for name, value in hashes.items() if value < fraction}
  nearest = min(hashes, key=lambda name: abs(hashes[name] - fraction))
  if not held:
    return {nearest}
  return held - {nearest} if len(held) == len(hashes) else held


def _fingerprint(
  folder: files_lib.Path,
  named: Mapping[str, Mapping[str, tuple[files_lib.Path, ...]]],
  layout: str,
) -> str:
  """Identifies the splits by names, sizes and times of their files: none of them is read."""
  digest = hashlib.sha256(layout.encode())
  changes = files_lib.listing(folder) if files_lib.in_bucket(folder) else {}
  for split, examples in named.items():
    for file in (file for files in examples.values() for file in files):
      change = changes[file] if changes else _change(file)
      digest.update(f'{split}\0{file.relative_to(folder)}\0{change}\0'.encode())
  return digest.hexdigest()[:16]


def _change(file: pathlib.Path) -> str:
  """What changes with the content of a file."""
  status = file.stat()
  return f'{status.st_size}\0{status.st_mtime_ns}'
