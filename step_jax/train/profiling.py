"""Profiles some training steps, and writes the trace to the folder of the stage."""

import pathlib
import tempfile
from typing import Any

import jax

from step_jax import files

FOLDER = 'profile'


class Profiler:
  """Traces steps `first` to `last` with `jax.profiler`, into `profile/` in the stage's folder.

  The trace is written after the last of these steps, or when training ends before it. TensorBoard's
  profile plugin, XProf and Perfetto can read it.

  Args:
    folder: folder of the stage.
    steps: `(first, last)`, counted from 1; empty: no trace.
  """

  def __init__(self, folder: files.Path, steps: tuple[int, ...] = ()):
    self._folder = folder / FOLDER
    self._first, self._last = steps or (1, 0)
    self._temporary: tempfile.TemporaryDirectory | None = None

  def before(self, step: int, state: Any) -> None:
    """Starts the trace if `step` is its first step; waits for the state."""
    if self._temporary is None and self._first <= step <= self._last:
      # Otherwise, work of earlier steps would be part of the trace.
      jax.block_until_ready(state)
      # The complete trace is copied, possibly to a bucket.
      self._temporary = tempfile.TemporaryDirectory(prefix='step_jax-')
      jax.profiler.start_trace(self._temporary.name)

  def after(self, step: int, state: Any) -> None:
    """Ends the trace if `step` is its last step; waits for the state."""
    if self._temporary is not None and step == self._last:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    """Ends a running trace and writes it.

    Raises:
      RunError: the trace cannot be written.
    """
    if self._temporary is None:
      return
    temporary, self._temporary = self._temporary, None
    with temporary as here:
      jax.profiler.stop_trace()
      for file in pathlib.Path(here).rglob('*'):
        if file.is_file():
          path = self._folder / file.relative_to(here).as_posix()
          files.make_folder(path.parent)
          files.write_bytes(path, file.read_bytes())
