"""Metrics and pictures of a run: a jsonl file, TensorBoard events and PNG files.

The methods are those of `clu.metric_writers`, whose own writers import TensorFlow.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import pathlib
import time

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from step_jax.data import pictures
from step_jax.errors import RunError

METRICS_FILE = 'metrics.jsonl'
SAMPLES_FOLDER = 'samples'


class MetricWriter:
  """Writes what a stage reports to its folder.

  Args:
    folder: of the stage.
    start: the step from which the run goes on; what an interrupted run wrote beyond it is dropped.

  Raises:
    RunError: by all methods, if the folder cannot be written to.
  """

  def __init__(self, folder: pathlib.Path, start: int = 0):
    self._folder = folder
    path = folder / METRICS_FILE
    with self._told():
      kept = [row for row in read_metrics(folder) if row['step'] <= start]
      part = path.with_suffix('.part')
      with part.open('w') as file:
        file.writelines(json.dumps(row) + '\n' for row in kept)
        file.flush()
        os.fsync(file.fileno())
      part.replace(path)
      self._file = path.open('a')
      self._events = _Events(folder / 'tensorboard', start + 1)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one row `{'step': …, name: value, …}`."""
    scalars = {name: float(value) for name, value in scalars.items()}
    with self._told():
      self._file.write(json.dumps({'step': step, **scalars}) + '\n')
      for name, value in scalars.items():
        self._events.add(step, summary.scalar(name, value))

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures, uint8 `[H, W, 3]`, to `samples/<name>_<step>.png` and to TensorBoard."""
    with self._told():
      (self._folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
      for name, image in images.items():
        pictures.write_png(self._folder / SAMPLES_FOLDER / f'{name}_{step:08d}.png', image)
        self._events.add(step, summary.image(name, image, dataformats='HWC'))

  def flush(self) -> None:
    """Makes sure that everything written so far is on disk."""
    with self._told():
      self._file.flush()
      os.fsync(self._file.fileno())
      self._events.flush()

  def close(self) -> None:
    """Flushes and closes all files."""
    with self._told(), contextlib.closing(self._file), contextlib.closing(self._events):
      self.flush()

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise RunError(
        f'{self._folder}: metrics cannot be written ({error.strerror}); checkpoints are whole: '
        'mend that, and the same command goes on'
      ) from None


class _Events:
  """A file of TensorBoard events, written where it is told to.

  tensorboardX's own `SummaryWriter` writes in a thread; where that fails, as on a full disk, nobody
  hears of it, and the next events wait for ever.
  """

  def __init__(self, folder: pathlib.Path, purge_step: int):
    folder.mkdir(exist_ok=True)
    # Two starts within a second would have one name.
    self._writer = EventsWriter(str(folder / 'events'), f'.{os.getpid()}.{time.monotonic_ns()}')
    # Tells TensorBoard to forget what another file has from there on.
    self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

  def add(self, step: int, found) -> None:
    self._write(step, summary=found)

  def _write(self, step: int, **content) -> None:
    self._writer.write_event(Event(step=step, wall_time=time.time(), **content))

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


def read_metrics(folder: pathlib.Path) -> list[dict]:
  """The rows that a stage has written, oldest first.

  A last line cut short by a crash is left out.
  """
  path = folder / METRICS_FILE
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(errors='replace').splitlines():
    try:
      rows.append(json.loads(line))
    except ValueError:
      break
  return rows
