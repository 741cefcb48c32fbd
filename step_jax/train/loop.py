"""The one training loop of all stages."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import logging
import time
from typing import Any

import jax
import numpy as np
import tqdm

from step_jax.errors import RunError
from step_jax.train import checkpoint, profiling, writers

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What an evaluation during training found: scalars by name, and pictures, uint8 `[H, W, 3]`."""

  scalars: Mapping[str, float]
  images: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Every:
  """After how many steps to log, to save and to evaluate."""

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
  """Trains from the state's own step to `num_steps`, and returns the final state.

  After every step that is due: metrics are averaged over the steps since the last time and checked,
  then the state is evaluated, then saved; an evaluated state is always saved, with its scores. The
  last step is due for everything.

  Args:
    state: a pytree with an int32 scalar `step`; its buffers are given away.
    train_step: `(state, batch) -> (state, float32 scalars)`, compiled.
    batches: the batches from the state's step on.
    num_steps: when to stop.
    every: what is due when.
    checkpoints: where states go.
    writer: where metrics and pictures go; None on all hosts but one.
    evaluate: scores a state; None where there is nothing to score on.
    items_per_step: pictures (or codes) that a step sees, for the progress line.
    stop: asked after every step but the last, with its number, whether to save it and return.
    profiler: told before and after every step; the caller closes it.

  Raises:
    RunError: a metric is not finite; nothing of the steps since is saved.
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
      # Reading metrics waits for the device; nothing else in the loop does.
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
  """Scalars as text; members of a family, as `grad_norm/generator`, are for the charts."""
  return '  '.join(f'{name} {value:.4g}' for name, value in scalars.items() if '/' not in name)


def _average(history: list[Mapping], step: int, saved: int | None) -> dict[str, float]:
  """Means over the steps since the last log, all of which must be finite."""
  for offset, metrics in enumerate(history):
    # Losses first: where one of them is not finite, gradients are not either.
    for name, value in sorted(metrics.items(), key=lambda item: '/' in item[0]):
      if not np.isfinite(value):
        kept = f'the checkpoint of step {saved} is kept' if saved else 'no checkpoint was saved yet'
        raise RunError(
          f'{name} became {value} at step {step - len(history) + offset + 1}; {kept}: '
          'lower the learning rates (optimizer.*), or look at the pictures read there'
        )
  return {name: float(np.mean([metrics[name] for metrics in history])) for name in history[0]}


class _Clock:
  """Speed and remaining time; time spent on evaluation and saving is not counted as training."""

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
