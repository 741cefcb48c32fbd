"""Which images a stage was trained and validated on, kept in its folder and compared later.

Images are compared by name and content, never by the times of files. Only the training and the
validation split count.
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
# Names that a message lists of each kind of change.
_LISTED = 3


def of(dataset: PairSet) -> Contents:
  """The contents of a data set."""
  return {split: dataset.contents(split) for split in SPLITS if split in dataset.splits}


def write(contents: Contents, folder: files.Path) -> None:
  """Keeps the contents in a stage's folder."""
  files.write_text(folder / FILE, json.dumps(contents, indent=0, sort_keys=True) + '\n')


def read(folder: files.Path) -> Contents | None:
  """What `write` kept; None for stages of older versions, which kept nothing.

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
  """What differs, one line for each kind of change; empty if nothing does."""
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
  """Names of images that are in one split of the old contents and in one of the new, unchanged."""
  return {name for name, _ in old.get(old_split, {}).items() & new.get(new_split, {}).items()}


def open_held_out(
  folder: files.Path, settings: ml_collections.ConfigDict, path: str = '', split: str = 'val'
) -> PairSet:
  """Opens data to show or to score a trained stage on; warns if it was trained on some of it.

  Args:
    folder: of the stage.
    settings: its `config.data`.
    path: another data set, to be opened with the same settings.
    split: what will be read.

  Raises:
    DataError: it cannot be opened, or has no such split.
  """
  from step_jax import data  # Which imports this module's package first.

  dataset = data.open_config(settings, path)
  dataset.split(split)
  if warning := evaluation_warning(folder, dataset, split):
    log.warning('%s', warning)
  return dataset


def evaluation_warning(folder: files.Path, dataset: PairSet, split: str) -> str:
  """What to say of scores on images that a stage may have been trained on; else empty.

  Args:
    folder: of the stage.
    dataset: what is scored.
    split: of it.
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
  """What to say of a stage that is compared with held-out images and has no record of its own."""
  return (
    f'{folder}: has no record of its images ({FILE}), and since it was trained the '
    'rule that holds out validation images has changed, so some of them may have been trained on'
  )


def _line(kind: str, names: set[str]) -> str:
  listed = ', '.join(untrusted.shown(name) for name in sorted(names)[:_LISTED])
  return f'{len(names)} {kind}: {listed}{", …" if len(names) > _LISTED else ""}'
