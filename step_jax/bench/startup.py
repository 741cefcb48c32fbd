"""From nothing to the first training step: a process of its own, with and without kept programs."""

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
  """What a fresh process does until its first step is done.

  Args:
    settings: of the bench.
    folder: of the data set.
    started: when the process was asked for, by `time.time`.

  Returns:
    Seconds since then when JAX was imported (`imported`), the stage open (`opened`), the state made
    (`initialised`), the first step done (`first_step`); how many programs were made (`programs`),
    and how many of these were compiled and not found in the cache (`compiled`).
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
  """`first_step` in a process of its own that keeps its compiled programs in a folder.

  Raises:
    RunError: the process failed.
  """
  environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(cache)}
  given = {'settings': dataclasses.asdict(settings), 'folder': folder, 'started': time.time()}
  command = [sys.executable, '-m', 'step_jax.bench.startup', json.dumps(given)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ['no message'])[-1]
    raise RunError(f'the process that was started to be timed failed: {last}')
  return json.loads(done.stdout.splitlines()[-1])


def measure(settings: Settings, spawn: Callable[..., dict] = spawn) -> dict:
  """What was found, for a record: everything of `first_step` with an empty cache, and a full one.

  Args:
    settings: of the bench.
    spawn: starts a process.
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
  given = json.loads(sys.argv[1])
  settings = Settings(**given['settings'])
  print(json.dumps(first_step(settings, given['folder'], given['started'])))


if __name__ == '__main__':
  _main()
