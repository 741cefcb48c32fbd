"""Records which images a stage was trained and validated on, to compare them later.

Images are compared by name and content, never by file times. Only the training and validation
splits are recorded.
"""

from collections.abc import Mapping
import json
import logging

import ml_collections

from step_jax import files, untrusted
from step_jax.data.pairs import PairSet

log = logging.getLogger(__name__)

FILE = 'data.json'
SPLITS = ('train', 'val')
# Split -> name of an example -> hash of its content.
Contents = Mapping[str, Mapping[str, str]]
# Maximum number of names in a message, for each kind of change.
_LISTED = 3


def of(dataset: PairSet) -> Contents:
  """The contents of a data set."""
  return {split: dataset.contents(split) for split in SPLITS if split in dataset.splits}


def write(contents: Contents, folder: files.Path) -> None:
  """Writes the contents to the folder of a stage."""
  files.write_text(folder / FILE, json.dumps(contents, indent=0, sort_keys=True) + '\n')


def read(folder: files.Path) -> Contents | None:
  """Reads the contents that `write` has written; None for stages of older versions.

  Raises:
    RunError: the file is damaged.
  """
  path = folder / FILE
  if not path.is_file():
    return None
  try:
    contents = untrusted.read_json(path.read_text('utf-8'))
    for examples in contents.values():
      if not isinstance(examples, dict) or not all(isinstance(x, str) for x in examples.values()):
        raise ValueError('not names and hashes')
    return contents
  except (ValueError, TypeError, RecursionError) as error:
    raise untrusted.damaged(
      path, error, 'restore it from a copy; without it, images cannot be compared'
    ) from None


def differences(old: Contents, new: Contents) -> list[str]:
  """Differences between contents, one line per kind of change."""
  moved = {
    f'moved from {a} to {b}': old.get(a, {}).keys() & new.get(b, {}).keys()
    for a, b in (SPLITS, SPLITS[::-1])
  }
  named = set().union(*moved.values())
  lines = [_line(kind, names) for kind, names in moved.items() if names]
  for split in SPLITS:
    before, after = old.get(split, {}), new.get(split, {})
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    for kind, names in (
      ('added to', after.keys() - before.keys() - named),
      ('removed from', before.keys() - after.keys() - named),
      ('changed in', changed),
    ):
      if names:
        lines.append(_line(f'{kind} {split}', names))
  return lines


def shared(old: Contents, old_split: str, new: Contents, new_split: str) -> set[str]:
  """Names of unchanged images in `old_split` of the old and `new_split` of the new contents."""
  return {name for name, _ in old.get(old_split, {}).items() & new.get(new_split, {}).items()}


def open_held_out(
  folder: files.Path, settings: ml_collections.ConfigDict, path: str = '', split: str = 'val'
) -> PairSet:
  """Opens data for showing or scoring a trained stage; warns if it was trained on some of it.

  Args:
    folder: folder of the stage.
    settings: its `config.data`.
    path: another data set to open with the same settings; empty: that of the settings.
    split: split that will be read.

  Raises:
    DataError: the data set cannot be opened, or has no such split.
  """
  from step_jax import data  # At the top, this would be a circular import.

  dataset = data.open_config(settings, path)
  dataset.split(split)
  if warning := evaluation_warning(folder, dataset, split):
    log.warning('%s', warning)
  return dataset


def evaluation_warning(folder: files.Path, dataset: PairSet, split: str) -> str:
  """Warning if a stage may have been trained on images that are scored; otherwise empty.

  Args:
    folder: folder of the stage.
    dataset: data set that is scored.
    split: split that is scored.
  """
  if split == 'train':
    return ''
  recorded = read(folder)
  if recorded is None:
    return unrecorded(folder) if dataset.held_out else ''
  names = shared(recorded, 'train', {split: dataset.contents(split)}, split)
  if not names:
    return ''
  return (
    f'{folder}: was trained on {len(names)} of the {dataset.splits[split]} {split} images: scores '
    'are not of held-out images alone'
  )


def unrecorded(folder: files.Path) -> str:
  """Warning for a stage without a record of its images, if held-out images are scored."""
  return (
    f'{folder}: has no record of its images ({FILE}), and since it was trained the '
    'rule that holds out validation images has changed, so some of them may have been trained on'
  )


def _line(kind: str, names: set[str]) -> str:
  listed = ', '.join(untrusted.shown(name) for name in sorted(names)[:_LISTED])
  return f'{len(names)} {kind}: {listed}{", …" if len(names) > _LISTED else ""}'
