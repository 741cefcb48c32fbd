"""The training loop of all stages."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import logging
import time
from typing import Any

import jax
import numpy as np
import tqdm

from step_jax import machine
from step_jax.errors import RunError
from step_jax.train import checkpoint, profiling, writers

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Result of an evaluation during training: scalars and images, uint8 `[H, W, 3]`, by name."""

  scalars: Mapping[str, float]
  images: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Every:
  """Number of steps between log entries, checkpoints and evaluations."""

  log: int
  checkpoint: int
  evaluate: int


def run(
  state: Any,
  train_step: Callable[[Any, Any], tuple[Any, Mapping[str, jax.Array]]],
  batches: Iterator[Any],
  num_steps: int,
  every: Every,
  checkpoints: checkpoint.Checkpoints,
  writer: writers.MetricWriter | writers.Several | None,
  evaluate: Callable[[Any], Evaluation] | None,
  items_per_step: int,
  stop: Callable[[int], bool] = lambda step: False,
  profiler: profiling.Profiler | None = None,
) -> Any:
  """Trains from the step of the state to `num_steps`, and returns the final state.

  At the intervals in `every`, metrics are averaged over the steps since the last time and checked;
  then the state is evaluated; then it is saved. An evaluated state is always saved, with its
  scores. The last step does all of these.

  Args:
    state: a pytree with an int32 scalar `step`; its buffers are donated.
    train_step: `(state, batch) -> (state, float32 scalars)`, compiled.
    batches: the batches from the step of the state on.
    num_steps: step at which training ends.
    every: intervals.
    checkpoints: stores states.
    writer: writes metrics and images; None on all hosts except one.
    evaluate: scores a state; None if there is no data for this.
    items_per_step: number of images (or codes) per step, for the progress line.
    stop: called with the step number after every step except the last; returns whether to save the
      state and return.
    profiler: called before and after every step; the caller closes it.

  Raises:
    RunError: a metric is not finite; no state after that step is saved.
  """
  start = int(state.step)
  pending: list[Mapping[str, jax.Array]] = []
  clock = _Clock(start, num_steps, items_per_step)
  with tqdm.tqdm(total=num_steps, initial=start, unit='step', disable=None) as bar:
    for step in range(start + 1, num_steps + 1):
      if profiler:
        profiler.before(step, state)
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        state, metrics = train_step(state, next(batches))
      if step == start + 1:
        # Tracing and compilation leave up to a gigabyte.
        machine.return_free_memory()
      if profiler:
        profiler.after(step, state)
      pending.append(metrics)
      last = step == num_steps
      stopping = not last and stop(step)
      due = {
        name: last or stopping or step % getattr(every, name) == 0 for name in ('log', 'checkpoint')
      }
      evaluating = evaluate is not None and (last or step % every.evaluate == 0)
      bar.update()
      if not (due['log'] or due['checkpoint'] or evaluating):
        continue
      # Reading metrics is the only operation in the loop that waits for the device.
      scalars = _average(jax.device_get(pending), step, checkpoints.latest)
      pending.clear()
      scalars['images_per_second'] = clock.rate(step)
      line = _line(scalars)
      bar.set_postfix_str(line[:80], refresh=False)
      log.info('step %d/%d  %s  %s left', step, num_steps, line, clock.left(step))
      if writer:
        writer.write_scalars(step, scalars)
      scores = None
      if evaluating:
        evaluation = evaluate(state)
        scores = evaluation.scalars
        log.info('step %d  %s', step, _line(scores))
        if writer:
          writer.write_scalars(step, scores)
          writer.write_images(step, evaluation.images)
      if evaluating or due['checkpoint']:
        if writer:
          writer.flush()
        checkpoints.save(step, state, scores)
      if stopping:
        break
      clock.restart(step)
  return state


def _line(scalars: Mapping[str, float]) -> str:
  """Scalars as text, except families such as `grad_norm/generator`, which are for charts only."""
  return '  '.join(f'{name} {value:.4g}' for name, value in scalars.items() if '/' not in name)


def _average(history: list[Mapping], step: int, saved: int | None) -> dict[str, float]:
  """Means over the steps since the last log entry; all values must be finite."""
  for offset, metrics in enumerate(history):
    # Losses first, because gradients are not finite either if a loss is not.
    for name, value in sorted(metrics.items(), key=lambda item: '/' in item[0]):
      if not np.isfinite(value):
        kept = f'the checkpoint of step {saved} is kept' if saved else 'no checkpoint was saved yet'
        raise RunError(
          f'{name} became {value} at step {step - len(history) + offset + 1}; {kept}: '
          'lower the learning rates (optimizer.*), or look at the pictures read there'
        )
  return {name: float(np.mean([metrics[name] for metrics in history])) for name in history[0]}


class _Clock:
  """Speed and remaining time of training, without the time of evaluation and saving."""

  def __init__(self, start: int, num_steps: int, items_per_step: int):
    self._num_steps = num_steps
    self._items = items_per_step
    self._seconds_per_step = 0.0
    self.restart(start)

  def restart(self, step: int) -> None:
    self._step, self._time = step, time.monotonic()

  def rate(self, step: int) -> float:
    seconds = max(time.monotonic() - self._time, 1e-9)
    self._seconds_per_step = seconds / max(step - self._step, 1)
    return self._items / self._seconds_per_step

  def left(self, step: int) -> str:
    seconds = (self._num_steps - step) * self._seconds_per_step
    return f'{seconds / 60:.1f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'
