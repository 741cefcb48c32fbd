"""Throughput of the input pipeline, and the time that a training step waits for it."""

from collections.abc import Callable, Iterator
import contextlib
import pathlib
import tempfile
import time

import jax

from step_jax import methods
from step_jax.bench import case, timing
from step_jax.bench.settings import Settings
from step_jax.data import builder, swatches
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib

_SYNTHETIC_PAIRS = 64
# Size of prepared images relative to the crop.
_MARGIN = 1.125
# Batches of one measurement, and batches skipped before it: more than the pipeline prefetches.
_BATCHES, _FILLING = 64, 16
_STEPS = 8


@contextlib.contextmanager
def prepared_pairs(settings: Settings) -> Iterator[str]:
  """Yields the folder of the data set: the given one, or a temporary synthetic one."""
  if settings.data:
    yield settings.data
    return
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch) / 'pairs'
    drawn = swatches.picture_set(int(settings.size * _MARGIN), _SYNTHETIC_PAIRS, 2)
    builder.prepare(drawn, folder)
    yield str(folder)


def open_stage(settings: Settings, folder: str) -> stage_lib.Training:
  """Opens a stage on a data set as in training, with newly initialised networks."""
  method, _ = methods.of_stage(settings.stage)
  config = method.hook('cases').make_config(settings, settings.stage)
  config.data.path = folder
  # Keep the size of the images, which are cropped.
  config.data.resize = 0
  with tempfile.TemporaryDirectory() as workdir:
    _, stage = methods.of_stage(config.stage)
    return stage.hook('build')(config, pathlib.Path(workdir), mesh_lib.make_mesh())


def throughput(
  batches: Iterator, batch: int, count: int = _BATCHES, clock=time.perf_counter,
  cpu_clock=time.process_time,
) -> tuple[float, float]:  # fmt: skip
  """Examples of the pipeline alone, per second and per second of processor time.

  Args:
    batches: batches of the pipeline.
    batch: number of examples (pairs or triplets) per batch.
    count: number of batches to measure.
    clock, cpu_clock: wall-clock seconds, and processor seconds of all threads of this process.
  """
  for _ in range(_FILLING):
    next(batches)
  started, cpu_started = clock(), cpu_clock()
  for _ in range(count):
    next(batches)
  seconds, cpu_seconds = clock() - started, cpu_clock() - cpu_started
  return count * batch / seconds, count * batch / max(cpu_seconds, 1e-9)


class Loops:
  """Training steps with batches of the pipeline, or with one batch that stays on the device.

  Args:
    step: compiled `(state, batch, frozen) -> (state, metrics)`.
    state: training state; donated.
    batches: batches of the pipeline.
    frozen: frozen parameters on the device.
    place: moves a batch to the device.
  """

  def __init__(self, step: Callable, state, batches: Iterator, frozen, place: Callable):
    self._step, self._state = step, state
    self._batches, self._frozen, self._place = batches, frozen, place
    self._resident = place(next(batches))
    self._asking = 0.0

  def fed(self, calls: int) -> None:
    """Trains on new batches."""
    for _ in range(calls):
      started = time.perf_counter()
      batch = next(self._batches)
      self._asking += time.perf_counter() - started
      self._advance(self._place(batch))
    jax.block_until_ready(self._state)

  def resident(self, calls: int) -> None:
    """Trains on the batch on the device."""
    for _ in range(calls):
      self._advance(self._resident)
    jax.block_until_ready(self._state)

  def in_turn(self, repeats: int, calls: int = _STEPS) -> dict[str, list[float]]:
    """Seconds per step, `fed` and `resident`, and seconds of a fed step that wait for its batch."""
    self.resident(2)
    seconds = {'fed': [], 'resident': [], 'asking': []}
    for _ in range(repeats):
      # Batches prefetched during other work would hide a slow pipeline.
      for _ in range(_FILLING):
        next(self._batches)
      self.fed(1)
      self._asking = 0.0
      seconds['fed'].append(timing.measure(self.fed, calls))
      seconds['asking'].append(self._asking / calls)
      seconds['resident'].append(timing.measure(self.resident, calls))
    return seconds

  def _advance(self, batch):
    self._state, _ = self._step(self._state, batch, self._frozen)


def wait_share(fed: list[float], resident: list[float]) -> timing.Spread:
  """Extra time of fed steps over resident ones, as a share of the fed step, per round."""
  return timing.Spread.of([1 - b / a for a, b in zip(fed, resident, strict=True)])


def measure(settings: Settings) -> tuple[case.Program, dict]:
  """Costs of the step, and the measurements, for a record."""
  with prepared_pairs(settings) as folder:
    stage = open_stage(settings, folder)
    rates = [throughput(stage.batches(0), settings.batch) for _ in range(settings.repeats)]
    mesh = mesh_lib.make_mesh()
    place = lambda batch: mesh_lib.to_global(mesh, batch)
    init = jax.jit(stage.step.init, out_shardings=mesh_lib.replicated(mesh))
    state, frozen = init(jax.random.key(0)), mesh_lib.put_replicated(mesh, stage.frozen)
    batches = stage.batches(0)
    compiled, program = case.compile_(stage.step.jitted_step(), state, place(next(batches)), frozen)
    loops = Loops(compiled, state, batches, frozen, place)
    del state
    seconds = loops.in_turn(settings.repeats)
  shares = [a / b for a, b in zip(seconds['asking'], seconds['fed'], strict=True)]
  return program, {
    'examples_per_second': timing.Spread.of([rate for rate, _ in rates]),
    'examples_per_core_second': timing.Spread.of([rate for _, rate in rates]),
    'fed_step_seconds': timing.Spread.of(seconds['fed']),
    'resident_step_seconds': timing.Spread.of(seconds['resident']),
    'wait_share': wait_share(seconds['fed'], seconds['resident']),
    'asking_share': timing.Spread.of(shares),
  }
