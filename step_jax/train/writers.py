"""Writes metrics and images of a run: a jsonl file, TensorBoard events and PNG files.

The interface is that of `clu.metric_writers`, which imports TensorFlow.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np

from step_jax import files, untrusted
from step_jax.data import pictures
from step_jax.errors import RunError


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
  """Hides PyTorch from imports, unless it is imported already."""
  hidden = sys.modules.setdefault('torch', None) is None
  try:
    yield
  finally:
    if hidden:
      del sys.modules['torch']


# tensorboardX would import PyTorch where it is installed: seconds and half a gigabyte.
with _without_torch():
  from tensorboardX import summary
  from tensorboardX.event_file_writer import EventsWriter
  from tensorboardX.proto.event_pb2 import Event, SessionLog

METRICS_FILE = 'metrics.jsonl'
SAMPLES_FOLDER = 'samples'
_EVENTS_FOLDER = 'tensorboard'


class MetricWriter:
  """Writes metrics and images to the folder of a stage.

  Objects in a bucket cannot be appended to. Rows are therefore written to a local file, which
  replaces the one in the bucket at each `flush`. Events are written to a new file after each
  `flush`.

  Args:
    folder: folder of the stage.
    start: step at which the run starts or resumes; later rows of an interrupted run are dropped.

  Raises:
    RunError: raised by all methods if the folder cannot be written to.
  """

  def __init__(self, folder: files.Path, start: int = 0):
    self._folder = folder
    # Folder in which files are written: the folder itself, or a local one for a bucket.
    self._here = folder
    if files.in_bucket(folder):
      self._temporary = tempfile.TemporaryDirectory(prefix='step_jax-')
      self._here = pathlib.Path(self._temporary.name)
    path = self._here / METRICS_FILE
    with self._told():
      rows = [row for row in read_metrics(folder) if row['step'] <= start]
      files.write_text(path, ''.join(json.dumps(row) + '\n' for row in rows), sync=True)
      self._file = path.open('a')
      self._events = _Events(folder, self._here, start + 1)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one row `{'step': …, name: value, …}`."""
    scalars = {name: float(value) for name, value in scalars.items()}
    with self._told():
      self._file.write(json.dumps({'step': step, **scalars}) + '\n')
      for name, value in scalars.items():
        self._events.add(step, summary.scalar(name, value))

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes images, uint8 `[H, W, 3]`, to `samples/<name>_<step>.png` and to TensorBoard."""
    with self._told():
      files.make_folder(self._folder / SAMPLES_FOLDER)
      for name, image in images.items():
        pictures.write_png(self._folder / SAMPLES_FOLDER / f'{name}_{step:08d}.png', image)
        self._events.add(step, summary.image(name, image, dataformats='HWC'))

  def flush(self) -> None:
    """Syncs everything written so far to disk."""
    with self._told():
      self._file.flush()
      os.fsync(self._file.fileno())
      if self._here != self._folder:
        files.write_bytes(self._folder / METRICS_FILE, (self._here / METRICS_FILE).read_bytes())
      self._events.flush()

  def close(self) -> None:
    """Flushes and closes all files."""
    with self._told(), contextlib.closing(self._file), contextlib.closing(self._events):
      self.flush()
    if self._here != self._folder:
      self._temporary.cleanup()

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise RunError(
        f'{self._folder}: metrics cannot be written ({error.strerror}); checkpoints are intact: '
        'fix this, then re-run the command to resume'
      ) from None


class Several:
  """Passes calls on to several writers, in order; their creator closes them."""

  def __init__(self, *several: Any):
    self._writers = several

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Tells all of them."""
    for writer in self._writers:
      writer.write_scalars(step, scalars)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Tells all of them."""
    for writer in self._writers:
      writer.write_images(step, images)

  def flush(self) -> None:
    """Tells all of them."""
    for writer in self._writers:
      writer.flush()


class _Events:
  """A file of TensorBoard events, written synchronously.

  `SummaryWriter` of tensorboardX writes in a thread. If that fails, as on a full disk, there is no
  error, and later events wait forever.
  """

  def __init__(self, folder: files.Path, here: pathlib.Path, purge_step: int):
    self._folder, self._here = folder / _EVENTS_FOLDER, here / _EVENTS_FOLDER
    self._here.mkdir(exist_ok=True)
    self._open()
    # Makes TensorBoard ignore events of other files from this step on.
    self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

  def _open(self) -> None:
    # Files created in the same second would otherwise have the same name.
    suffix = f'.{os.getpid()}.{time.monotonic_ns()}'
    self._writer = EventsWriter(str(self._here / 'events'), suffix)
    self._empty = True

  def add(self, step: int, evaluation) -> None:
    self._write(step, summary=evaluation)

  def _write(self, step: int, **content) -> None:
    self._writer.write_event(Event(step=step, wall_time=time.time(), **content))
    self._empty = False

  def flush(self) -> None:
    self._writer.flush()
    if self._here == self._folder or self._empty:
      return
    self._writer.close()
    for part in self._here.glob('events*'):
      files.write_bytes(self._folder / part.name, part.read_bytes())
      part.unlink()
    self._open()

  def close(self) -> None:
    self._writer.close()


def read_metrics(folder: files.Path) -> list[dict]:
  """Reads the rows of a stage, oldest first, up to the first damaged line."""
  path = folder / METRICS_FILE
  if not path.exists():
    return []
  rows = []
  for line in path.read_bytes().decode(errors='replace').splitlines():
    try:
      row = untrusted.read_json(line)
      step = row.pop('step')
      if not isinstance(step, int):
        raise TypeError('step')
      rows.append({'step': step, **{name: float(row[name]) for name in row}})
    except (ValueError, TypeError, KeyError, OverflowError):
      break
  return rows
