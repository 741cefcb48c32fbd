"""Peak memory of a training step; each library runs in a separate process."""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import re
import subprocess
import sys

from step_jax import machine
from step_jax.bench import timing
from step_jax.bench.settings import Settings
from step_jax.errors import RunError

OURS = 'step_jax'
_CALLS = 3
_STATUS = pathlib.Path('/proc/self/status')
_RESET = pathlib.Path('/proc/self/clear_refs')


def peaks(settings: Settings, names: Sequence[str]) -> dict[str, int]:
  """Peak memory in bytes of each library: parameters, optimizers, batch, activations.

  Cached programs are not recompiled, so the memory of compilation is not included.

  Args:
    settings: settings of a training step benchmark.
    names: `OURS`, or names of the peer's variants.

  Raises:
    RunError: a process failed.
  """
  peak_of = {}
  for name in names:
    request = json.dumps({'settings': dataclasses.asdict(settings), 'name': name})
    command = [sys.executable, '-m', 'step_jax.bench.memory', request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
      last = (done.stderr.strip().splitlines() or ['no message'])[-1]
      raise RunError(f'--memory: the process that runs {name} failed: {last}')
    peak_of[name] = int(done.stdout.splitlines()[-1])
  return peak_of


def peak(settings: Settings, name: str) -> int:
  """Peak memory in bytes of one library in this process.

  On a GPU this is the GPU memory allocated by the library. On a CPU it is the peak resident memory
  in steady state, minus the resident memory after the imports.
  """
  import jax

  from step_jax import methods

  on_cpu = jax.default_backend() == 'cpu'
  stage = settings.stage
  cases = methods.of_stage(stage)[0].hook('cases')
  if name == OURS:
    before = _resident('VmRSS')
    work: timing.Work = cases.step_case(settings, stage).work
  else:
    from step_jax.bench.ports import running

    running.set_precision(settings.tf32)
    before = _resident('VmRSS')
    variants = cases.step_variants(settings, *cases.random_inputs(settings, stage))
    work = next(variant for variant in variants if variant.name == name).make()
  work(_CALLS)
  # As in training.
  machine.return_free_memory()
  if on_cpu and _RESET.exists():
    # Exclude memory used for the preparation.
    _RESET.write_text('5')
  work(_CALLS)
  if on_cpu:
    return _resident('VmHWM') - before
  if name == OURS:
    return jax.devices()[0].memory_stats()['peak_bytes_in_use']
  import torch

  return torch.cuda.max_memory_allocated()


def _resident(field: str) -> int:
  """Resident memory of this process in bytes: now (`VmRSS`) or its peak (`VmHWM`).

  Raises:
    RunError: this system does not report it.
  """
  text = _STATUS.read_text() if _STATUS.exists() else ''
  match = re.search(rf'^{field}:\s+(\d+) kB', text, re.MULTILINE)
  if not match:
    raise RunError('--memory: this system does not report the memory of a process: use Linux')
  return int(match.group(1)) * 1024


def _main() -> None:
  from step_jax import places

  places.keep_compiled()
  request = json.loads(sys.argv[1])
  print(peak(Settings(**request['settings']), request['name']))


if __name__ == '__main__':
  _main()
