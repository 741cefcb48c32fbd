"""Metrics and pictures of a run: a jsonl file, TensorBoard events and PNG files.

The methods are those of `clu.metric_writers`, whose own writers import TensorFlow.
"""

from collections.abc import Mapping
import json
import os
import pathlib

import numpy as np
from tensorboardX import SummaryWriter

from step_jax.data import pictures

METRICS_FILE = 'metrics.jsonl'
SAMPLES_FOLDER = 'samples'


class MetricWriter:
  """Writes what a stage reports to its folder.

  Args:
    folder: of the stage.
    start: the step from which the run goes on; what an interrupted run wrote beyond it is dropped.
  """

  def __init__(self, folder: pathlib.Path, start: int = 0):
    self._folder = folder
    path = folder / METRICS_FILE
    kept = [row for row in read_metrics(folder) if row['step'] <= start]
    part = path.with_suffix('.part')
    part.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    part.replace(path)
    self._file = path.open('a')
    self._events = SummaryWriter(str(folder / 'tensorboard'), purge_step=start + 1)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one row `{'step': …, name: value, …}`."""
    scalars = {name: float(value) for name, value in scalars.items()}
    self._file.write(json.dumps({'step': step, **scalars}) + '\n')
    for name, value in scalars.items():
      self._events.add_scalar(name, value, step)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures, uint8 `[H, W, 3]`, to `samples/<name>_<step>.png` and to TensorBoard."""
    (self._folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
    for name, image in images.items():
      pictures.write_png(self._folder / SAMPLES_FOLDER / f'{name}_{step:08d}.png', image)
      self._events.add_image(name, image, step, dataformats='HWC')

  def flush(self) -> None:
    """Makes sure that everything written so far is on disk."""
    self._file.flush()
    os.fsync(self._file.fileno())
    self._events.flush()

  def close(self) -> None:
    """Flushes and closes all files."""
    self.flush()
    self._file.close()
    self._events.close()


def read_metrics(folder: pathlib.Path) -> list[dict]:
  """The rows that a stage has written, oldest first.

  A last line cut short by a crash is left out.
  """
  path = folder / METRICS_FILE
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows
