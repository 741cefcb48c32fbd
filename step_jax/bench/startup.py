"""Time to the first training step of a new process, with an empty and a full compilation cache."""

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from step_jax.bench import input_pipeline, timing
from step_jax.bench.settings import Settings
from step_jax.errors import RunError

_COMPILE_EVENT = '/jax/core/compile/backend_compile_duration'
_HIT_EVENT = '/jax/compilation_cache/cache_hits'


def first_step(settings: Settings, folder: str, started: float) -> dict:
  """Runs the first training step in this process, and measures the time.

  Args:
    settings: settings of the benchmark.
    folder: folder of the data set.
    started: `time.time` at which the process was started.

  Returns:
    Seconds since the start at which JAX was imported (`imported`), the stage was opened (`opened`),
    the state was initialised (`initialised`) and the first step was done (`first_step`); the number
    of programs (`programs`), and the number of those not in the cache (`compiled`).
  """
  import jax
  import jax.monitoring

  from step_jax.train import mesh as mesh_lib

  seconds, events = {}, []
  jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
  jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
  note = lambda name: seconds.update({name: time.time() - started})
  note('imported')
  stage = input_pipeline.open_stage(settings, folder)
  mesh = mesh_lib.make_mesh()
  batches = stage.batches(0)
  note('opened')
  init = jax.jit(stage.step.init, out_shardings=mesh_lib.replicated(mesh))
  state, frozen = init(jax.random.key(0)), mesh_lib.put_replicated(mesh, stage.frozen)
  jax.block_until_ready(state)
  note('initialised')
  step = stage.step.jitted_step()
  jax.block_until_ready(step(state, mesh_lib.to_global(mesh, next(batches)), frozen))
  note('first_step')
  programs = events.count(_COMPILE_EVENT)
  return {**seconds, 'programs': programs, 'compiled': programs - events.count(_HIT_EVENT)}


def spawn(settings: Settings, folder: str, cache: pathlib.Path) -> dict:
  """Runs `first_step` in a new process with its compilation cache in `cache`.

  Raises:
    RunError: the process failed.
  """
  environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(cache)}
  request = {'settings': dataclasses.asdict(settings), 'folder': folder, 'started': time.time()}
  command = [sys.executable, '-m', 'step_jax.bench.startup', json.dumps(request)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ['no message'])[-1]
    raise RunError(f'the measured process failed: {last}')
  return json.loads(done.stdout.splitlines()[-1])


def measure(settings: Settings, spawn: Callable[..., dict] = spawn) -> dict:
  """Results of `first_step` with an empty cache (`cold`) and a full one (`warm`), for a record.

  Args:
    settings: settings of the benchmark.
    spawn: runs a process.
  """
  starts = {'cold': [], 'warm': []}
  with input_pipeline.prepared_pairs(settings) as folder:
    for _ in range(settings.repeats):
      with tempfile.TemporaryDirectory() as cache:
        for kind in starts:
          starts[kind].append(spawn(settings, folder, pathlib.Path(cache)))
  return {
    f'{kind}_{name}': timing.Spread.of([start[name] for start in runs])
    for kind, runs in starts.items()
    for name in runs[0]
  }


def _main() -> None:
  from step_jax import places

  places.keep_compiled()
  request = json.loads(sys.argv[1])
  settings = Settings(**request['settings'])
  print(json.dumps(first_step(settings, request['folder'], request['started'])))


if __name__ == '__main__':
  _main()
