"""Finds examples in a folder of images: which files belong together, and to which split.

An example has a name and one or two images, `A` and `B`. It may have a label map, `labels`, and
arrays, each with the name of its folder. Training decides which image is the source
(`config.data.direction`), so one prepared set can be used in both directions.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from step_jax import files as files_lib
from step_jax import untrusted
from step_jax.data import pictures, published
from step_jax.data.labels import NONE as NO_LABELS
from step_jax.data.labels import Labels
from step_jax.errors import DataError, shown
from step_jax.fields import LAYOUTS

_SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}
_PAIR_NAMES = (('A', 'B'), ('source', 'target'), ('input', 'output'))
# Names of the other parts of an example, which arrays must not have.
IMAGES = ('A', 'B')
LABELS = 'labels'
_RESERVED = {'name', 'source', 'target', 'labels', 'index', 'mask', 'code', 'input', 'output'}
_REMEDY = 'replace or remove it'
# Side -> its file.
Paths = Mapping[str, files_lib.Path]


@dataclasses.dataclass(frozen=True)
class Example:
  """A pair or a single image.

  Attributes:
    name: name, unique in its split.
    load: returns `{'A': …, 'B': …}` (or `{'A': …}`), uint8 RGB `[H, W, 3]`, and optionally
      `labels`, uint8 `[H, W]`, and arrays, float32. It may raise DataError.
    content: identifies what `load` returns; empty: the hash of it is used.
  """

  name: str
  load: Callable[[], Mapping[str, np.ndarray]]
  content: str = ''


@dataclasses.dataclass(frozen=True)
class PictureSet:
  """Examples by split, and a fingerprint that changes when they do.

  Attributes:
    layout: one of `LAYOUTS`.
    splits: name of a split -> its examples.
    fingerprint: fingerprint of all examples.
    held_out: whether the validation split was chosen by `hold_out`.
    palette: palette of the label maps; empty: there are none.
    arrays: name of an array -> its shape, the same for all examples.
  """

  layout: str
  splits: Mapping[str, list[Example]]
  fingerprint: str
  held_out: bool = False
  palette: str = ''
  arrays: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

  @property
  def images(self) -> tuple[str, ...]:
    """Names of the images of an example."""
    return IMAGES if self.layout in ('side_by_side', 'two_folders') else IMAGES[:1]


def scan(
  folder: str | os.PathLike,
  layout: str = 'auto',
  val_fraction: float = 0.1,
  labels: Labels = NO_LABELS,
) -> PictureSet:
  """Finds the examples in a folder without opening any image.

  Layouts (`docs/data.md` shows them): `side_by_side`, images with A in the left half and B in the
  right half; `two_folders`, `A/` and `B/` (or `source/` and `target/`, `trainA/` and `trainB/`),
  paired by file stem; `images_labels`, `images/` and `labels/`, paired by file stem; `unpaired`,
  single images. `auto` selects `two_folders` or `images_labels` if there are such folders, and
  otherwise `side_by_side`. Splits are the folders `train`, `val` and `test`. If there is no `val`,
  about `val_fraction` of the training images are held out, see `hold_out`.

  Args:
    folder: folder to search.
    layout: see above.
    val_fraction: see above.
    labels: how to read label maps, from a folder `labels/` next to the images or from one image of
      each pair. Arrays (`.npy`) of further folders are read with them.

  Raises:
    DataError: there is no such folder, there are no images, an image has no partner, or label maps
      are requested and missing.
  """
  folder = files_lib.path(folder)
  if layout not in LAYOUTS:
    raise DataError(f'data layout {layout!r} is unknown: use one of {", ".join(LAYOUTS)}')
  if not folder.is_dir():
    advice = published.remedy(folder) or 'give the folder that holds your images'
    raise DataError(f'{folder}: no such folder: {advice}')
  sides = _find_sides(folder)
  labelled = _find_labelled(folder)
  if layout == 'auto':
    layout = 'two_folders' if sides else 'images_labels' if labelled else 'side_by_side'
  if layout == 'two_folders':
    if not sides:
      raise DataError(
        f'{folder}: no two folders of pictures here: expected A/ and B/, source/ and target/, '
        'or trainA/ and trainB/'
      )
    roots = sides
  elif layout == 'images_labels':
    if not labelled:
      raise DataError(f'{folder}: no folders images/ and labels/ here, nor in its train/')
    roots = labelled
  else:
    roots = {
      split: {'A': root} for split, root in (_split_folders(folder) or {'train': folder}).items()
    }
  if labels.palette:
    roots = {split: root | _find_extras(root) for split, root in roots.items()}
  files_of = {split: _match_files(root) for split, root in roots.items()}
  if 'train' not in files_of:
    raise DataError(f'{folder}: holds {", ".join(files_of)} but no train: add train pictures')
  arrays = _check_alike(folder, layout, files_of, labels)
  named = {
    split: {paths['A'].relative_to(folder).as_posix(): paths for paths in examples}
    for split, examples in files_of.items()
  }
  held_out = 'val' not in named
  if held_out:
    train = named['train']
    chosen = hold_out(train, val_fraction)
    named['train'] = {name: paths for name, paths in train.items() if name not in chosen}
    named['val'] = {name: paths for name, paths in train.items() if name in chosen}
  load = functools.partial(_load, layout, labels, arrays)
  splits = {
    split: [Example(name, functools.partial(load, paths)) for name, paths in examples.items()]
    for split, examples in named.items()
  }
  fingerprint = _fingerprint(folder, named, layout + labels.identity)
  return PictureSet(layout, splits, fingerprint, held_out, labels.palette, arrays)


def _files(side: str, folder: files_lib.Path) -> list[files_lib.Path]:
  """All images (or arrays) below a folder, sorted by name, without hidden files and folders.

  Raises:
    DataError: there are no such files.
  """
  images = side in (*IMAGES, LABELS)
  named = pictures.find(_unhidden(folder), folder, pictures.EXTENSIONS if images else ('.npy',))
  paths = [path for path in named if files_lib.in_bucket(folder) or path.is_file()]
  if not paths:
    what = 'png, jpg or webp images' if images else 'arrays (npy)'
    raise DataError(f'{folder}: holds no {what}')
  return paths


def _unhidden(folder: files_lib.Path) -> Iterator[files_lib.Path]:
  """Everything below a folder except hidden files and folders."""
  for path in files_lib.listing(folder) if files_lib.in_bucket(folder) else folder.rglob('*'):
    if not any(part.startswith('.') for part in path.relative_to(folder).parts):
      yield path


def _split_folders(folder: files_lib.Path) -> dict[str, files_lib.Path]:
  folders = {}
  for child in sorted(folder.iterdir()):
    split = _SPLITS.get(child.name.lower())
    if split and child.is_dir():
      folders[split] = child
  return folders


def _find_sides(folder: files_lib.Path) -> dict[str, Paths]:
  """Finds the two folders of every split, `{'A': …, 'B': …}`.

  These are `train/A` and `train/B`, `trainA` and `trainB`, or `A` and `B`.
  """
  sides = {}
  for a, b in _PAIR_NAMES:
    for split, root in _split_folders(folder).items():
      if (root / a).is_dir() and (root / b).is_dir():
        sides[split] = {'A': root / a, 'B': root / b}
    for name, split in _SPLITS.items():
      if (folder / f'{name}{a}').is_dir() and (folder / f'{name}{b}').is_dir():
        sides[split] = {'A': folder / f'{name}{a}', 'B': folder / f'{name}{b}'}
    if not sides and (folder / a).is_dir() and (folder / b).is_dir():
      sides['train'] = {'A': folder / a, 'B': folder / b}
  return sides


def _find_labelled(folder: files_lib.Path) -> dict[str, Paths]:
  """Folders `images` and `labels` of every split: `{'A': images, 'labels': labels}`."""
  roots = _split_folders(folder) or {'train': folder}
  return {
    split: {'A': root / 'images', LABELS: root / LABELS}
    for split, root in roots.items()
    if (root / 'images').is_dir() and (root / LABELS).is_dir()
  }


def _find_extras(sides: Paths) -> Paths:
  """Folders of label maps and arrays next to the folders of images.

  Raises:
    DataError: a folder of arrays has a reserved name.
  """
  if sides['A'].name not in ('images', *(a for a, _ in _PAIR_NAMES)):
    return {}
  extras = {}
  for child in sorted(sides['A'].parent.iterdir()):
    if child in sides.values() or child.name.startswith('.') or not child.is_dir():
      continue
    if child.name == LABELS:
      extras[LABELS] = child
    elif any(path.suffix == '.npy' for path in _unhidden(child)):
      if not child.name.isidentifier() or child.name in _RESERVED | set(IMAGES):
        raise DataError(
          f'{shown(str(child))}: arrays are named after their folder, and cannot have this name: '
          'rename the folder, as codes'
        )
      extras[child.name] = child
  return extras


def _match_files(sides: Paths) -> list[dict[str, files_lib.Path]]:
  """Matches the files in all folders by stem: `{side: file}` for each example."""
  if len(sides) == 1:
    return [{'A': file} for file in _files('A', sides['A'])]
  by_stem = {side: _stems(side, root) for side, root in sides.items()}
  first = by_stem['A']
  for side, stems in by_stem.items():
    for here, there, other in ((first, stems, sides[side]), (stems, first, sides['A'])):
      lonely = sorted(here.keys() - there.keys())
      if lonely:
        raise DataError(
          f'{here[lonely[0]]}: has no file of the same name in {other} '
          f'({len(lonely)} images without a partner): add the missing files or remove these images'
        )
  return [{side: stems[stem] for side, stems in by_stem.items()} for stem in sorted(first)]


def _stems(side: str, folder: files_lib.Path) -> dict[str, files_lib.Path]:
  """Maps relative paths without extension to the files of a folder.

  Raises:
    DataError: there are no files, or two with the same stem.
  """
  stems: dict[str, files_lib.Path] = {}
  for file in _files(side, folder):
    stem = file.relative_to(folder).with_suffix('').as_posix()
    if stem in stems:
      raise DataError(f'{stems[stem]} and {file.name} have one stem: remove or rename one')
    stems[stem] = file
  return stems


def _check_alike(
  folder: files_lib.Path,
  layout: str,
  files_of: Mapping[str, list[dict[str, files_lib.Path]]],
  labels: Labels,
) -> dict[str, tuple[int, ...]]:
  """Checks that all splits have the same parts; returns the shapes of arrays by name.

  Raises:
    DataError: splits have different parts, or label maps are requested and missing.
  """
  sides = {split: set(examples[0]) for split, examples in files_of.items()}
  for split, others in sides.items():
    for name in others ^ sides['train']:
      has, lacks = (split, 'train') if name in others else ('train', split)
      raise DataError(f'{folder}: {has} has a folder {name}, {lacks} has none: add or remove one')
  if labels.palette and LABELS not in sides['train'] and layout == 'unpaired':
    raise DataError(
      f'{folder}: has no label maps, which this stage needs: put them into labels/ beside images/'
    )
  first = files_of['train'][0]
  return {
    name: untrusted.npy_type(path, _REMEDY)[0]
    for name, path in first.items()
    if name not in (*IMAGES, LABELS)
  }


def _load(
  layout: str, labels: Labels, arrays: Mapping[str, tuple[int, ...]], paths: Paths
) -> dict[str, np.ndarray]:
  loaded = {side: pictures.read_picture(paths[side]) for side in IMAGES if side in paths}
  if layout == 'side_by_side':
    loaded = _halves(paths['A'], loaded['A'])
  if LABELS in paths and labels.palette:
    loaded[LABELS] = labels.stored(paths[LABELS])
  elif labels.palette:
    loaded[LABELS] = labels.from_image(loaded[labels.side], shown(str(paths['A'])))
  for name, shape in arrays.items():
    loaded[name] = _read_array(paths[name], shape)
  return loaded


def _read_array(path: files_lib.Path, shape: tuple[int, ...]) -> np.ndarray:
  """Reads an array of numbers as float32; NaN is allowed.

  Raises:
    RunError: the file is damaged.
    DataError: it has no numbers, or its shape differs from that of the first file in its folder.
  """
  array = untrusted.read_arrays(path, _REMEDY)['']
  if array.dtype.kind not in 'fiub':
    raise DataError(f'{shown(str(path))}: holds {array.dtype}, not numbers: {_REMEDY}')
  if array.shape != shape:
    raise DataError(
      f'{shown(str(path))}: has the shape {array.shape}, the first array of this kind {shape}: '
      'give arrays of one shape'
    )
  return array.astype(np.float32)


def _halves(path: files_lib.Path, image: np.ndarray) -> dict[str, np.ndarray]:
  width = image.shape[1]
  if width % 2:
    raise DataError(
      f'{path}: is {width} px wide, which has no two halves: '
      'use layout two_folders or unpaired, or fix the image'
    )
  return {'A': image[:, : width // 2], 'B': image[:, width // 2 :]}


def hold_out(names: Collection[str], fraction: float) -> set[str]:
  """Names of the validation split: those with a hash below a threshold.

  The split of a name does not depend on other names, so adding or removing images does not move
  others. There is one exception: if a split would be empty, the name whose hash is nearest to the
  threshold is moved to it.

  Args:
    names: at least two names.
    fraction: threshold in [0, 1]; hashes are uniform in [0, 1).

  Raises:
    DataError: there is only one name.
  """
  if len(names) < 2:
    raise DataError(
      f'{next(iter(names))}: a single image cannot be split into train and val: add more images'
    )
  hashes = {
    name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') / 2**64
    for name in names
  }
  chosen = {name for name, value in hashes.items() if value < fraction}
  nearest = min(hashes, key=lambda name: abs(hashes[name] - fraction))
  if not chosen:
    return {nearest}
  return chosen - {nearest} if len(chosen) == len(hashes) else chosen


def _fingerprint(
  folder: files_lib.Path,
  named: Mapping[str, Mapping[str, Paths]],
  layout: str,
) -> str:
  """Hash of the names, sizes and times of the files of all splits; no file is read."""
  digest = hashlib.sha256(layout.encode())
  changes = files_lib.listing(folder) if files_lib.in_bucket(folder) else {}
  for split, examples in named.items():
    for file in (file for paths in examples.values() for file in paths.values()):
      change = changes[file] if changes else _change(file)
      digest.update(f'{split}\0{file.relative_to(folder)}\0{change}\0'.encode())
  return digest.hexdigest()[:16]


def _change(file: pathlib.Path) -> str:
  """Size and modification time of a file."""
  status = file.stat()
  return f'{status.st_size}\0{status.st_mtime_ns}'
