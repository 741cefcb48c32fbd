"""A profiler's trace of some steps of training, kept in the stage's folder."""

import pathlib
import tempfile
from typing import Any

import jax

from step_jax import files

FOLDER = 'profile'


class Profiler:
  """Traces steps `first` to `last` with `jax.profiler`, into `profile/` in the stage's folder.

  The trace is written after the last of them, or where training ends between them. TensorBoard's
  profile plugin, XProf and Perfetto read it.

  Args:
    folder: of the stage.
    steps: `(first, last)`, counted from 1; empty for none.
  """

  def __init__(self, folder: files.Path, steps: tuple[int, ...] = ()):
    self._folder = folder / FOLDER
    self._first, self._last = steps or (1, 0)
    self._temporary: tempfile.TemporaryDirectory | None = None

  def before(self, step: int, state: Any) -> None:
    """Begins the trace where `step` is the first one of it that is run; waits for the state."""
    if self._temporary is None and self._first <= step <= self._last:
      # What runs still of earlier steps would be taken for this one's.
      jax.block_until_ready(state)
      # A bucket gets what is written when the trace is complete.
      self._temporary = tempfile.TemporaryDirectory(prefix='step_jax-')
      jax.profiler.start_trace(self._temporary.name)

  def after(self, step: int, state: Any) -> None:
    """Ends the trace where `step` is its last; waits for the state."""
    if self._temporary is not None and step == self._last:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    """Ends the trace, if one is under way, and writes it.

    Raises:
      RunError: it cannot be written.
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
