"""Training that is killed many times (SIGKILL) ends like an uninterrupted one."""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import time

import hosts
import jax
import numpy as np
import pytest
import tiny

from step_jax import config as config_lib
from step_jax.train import checkpoint, writers

EVERY = {'log': 1, 'checkpoint': 3, 'evaluate': 10}
# When to kill the process, in this order.
MOMENTS = ('any', 'checkpoint', 'any', 'evaluation')
# More kills for a soak of hours, such as STEP_JAX_SOAK_KILLS=40 for each stage.
KILLS = int(os.environ.get('STEP_JAX_SOAK_KILLS', '24'))
STEPS_PER_KILL = 25


@dataclasses.dataclass(frozen=True)
class Soaked:
  """The smallest training of a stage.

  Attributes:
    stage: name of the stage.
    config: argument of its configuration file.
    fields: other fields.
    after: key of the training that comes before it, for a few steps.
    hosts: number of processes that train together.
  """

  stage: str
  config: str
  fields: dict
  after: str = ''
  hosts: int = 1


FIELDS = {
  'init_from': '',
  'eval_pictures': 16,
  'features.weights': 'random',
  'features.taps': ('conv1',),
  'features.tap_weights': (1.0,),
  **{f'every.{name}': steps for name, steps in EVERY.items()},
}
_STEP = {
  'batch_size': 2,
  'model.encoder_width': 4,
  'model.generator_width': 4,
  'model.discriminator_width': 4,
  'model.num_scales': 2,
}
_PSP = {'batch_size': 4, **tiny.PSP_FIELDS}
_SWATCHES = 'swatches,size=32,features=squeezenet1_1'
RUNS = {
  'pretrain': Soaked('pretrain', _SWATCHES, _STEP),
  'translate': Soaked('translate', _SWATCHES, _STEP),
  'finetune': Soaked('finetune', _SWATCHES, {**_STEP, 'init_from': 'translate'}, 'translate'),
  'mapper': Soaked(
    'mapper', _SWATCHES, {**_STEP, 'init_from': 'translate', 'imle.max_codes': 200}, 'translate'
  ),
  'stylegan2': Soaked('stylegan2', 'swatches,size=16', _PSP),
  'psp': Soaked('psp', 'swatches,size=16', {**_PSP, 'init_from': 'stylegan2'}, 'stylegan2'),
  'superstylenet': Soaked(
    'superstylenet',
    'swatches_regional,size=16,features=squeezenet1_1',
    {
      'batch_size': 2,
      'codes.size': 32,
      'model.generator_width': 1,
      'model.discriminator_width': 2,
      'model.label_width': 4,
      'model.spade_width': 4,
      'model.num_upsamplings': 1,
    },
  ),
  'two hosts': Soaked('pretrain', _SWATCHES, _STEP, hosts=2),
}


@dataclasses.dataclass(frozen=True)
class Kill:
  """Where a process was killed: its activity and the last logged step."""

  doing: str
  step: int


def start(workdir, name='translate', steps=KILLS * STEPS_PER_KILL):
  """Starts the processes of a training, one for each host."""
  run = RUNS[name]
  fields = {**FIELDS, **run.fields}
  length = steps * fields['batch_size'] / 1000
  fields |= {'schedule.fixed_kimg': length / 2, 'schedule.total_kimg': length}
  fields |= {'schedule.epochs': steps}
  known = config_lib.stage_module(run.stage).FIELDS
  command = ['-m', 'step_jax.main', f'--workdir={workdir}']
  command += [f'--config={config_lib.stage_file(run.stage)}:{run.config}']
  command += [f'--config.{key}={value}' for key, value in fields.items() if key in known]
  return hosts.start(1, *[command] * run.hosts)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')


class Watched:
  """The folder of a stage, observed from outside."""

  def __init__(self, workdir: pathlib.Path, name: str = 'translate'):
    self.folder = workdir / RUNS[name].stage
    self.log = self.folder / 'train.log'

  def lines(self) -> list[str]:
    return self.log.read_text().splitlines() if self.log.is_file() else []

  def last_step(self) -> int:
    """The last logged step; 0 if there is none."""
    found = [re.search(r' step (\d+)/', line) for line in self.lines()[-3:]]
    return max((int(match[1]) for match in found if match), default=0)

  def starts(self) -> list[int]:
    """First steps of all processes so far."""
    found = [re.search(r': steps (\d+) to', line) for line in self.lines()]
    return [int(match[1]) for match in found if match]

  def saved(self) -> int:
    return max((int(p.name) for p in self._checkpoints() if p.name.isdigit()), default=0)

  def is_writing(self) -> bool:
    return any(path.name.endswith('tmp') for path in self._checkpoints())

  def is_evaluating(self) -> bool:
    """Whether the last logged step is followed by an evaluation."""
    match = re.search(r' step (\d+)/', (self.lines() or [''])[-1])
    return bool(match) and int(match[1]) % EVERY['evaluate'] == 0

  def _checkpoints(self) -> list[pathlib.Path]:
    folder = self.folder / 'checkpoints'
    try:
      return list(folder.iterdir())
    except FileNotFoundError:
      return []


def kill(processes, watched: Watched, moment: str, rng: random.Random, startup: float) -> Kill:
  """Waits for the moment, kills a host, and returns its actual activity.

  The other hosts must end by themselves. Only before the first step they are killed too, because
  they wait five minutes for a host that has not connected yet.
  """
  lives = len(watched.starts())
  before = watched.saved()
  if moment == 'any':
    reached, until = watched.last_step(), time.monotonic() + rng.uniform(0, startup + 3)
    # Bounded, because steps are so short that a whole run would fit.
    while time.monotonic() < until and watched.last_step() < reached + 15:
      time.sleep(0.01)
  else:
    reached = {'checkpoint': watched.is_writing, 'evaluation': watched.is_evaluating}[moment]
    deadline = time.monotonic() + 300
    # Make some progress first.
    wanted = before + rng.randint(1, 12)
    while len(watched.starts()) == lives or watched.saved() < wanted or not reached():
      check_running(processes)
      assert time.monotonic() < deadline
      time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.01 if moment == 'checkpoint' else 0.1))
  check_running(processes)
  rng.choice(processes).kill()
  if len(watched.starts()) == lives:
    for process in processes:
      process.kill()
  for process, printed in zip(processes, hosts.outputs(processes, 120), strict=True):
    assert process.returncode, printed[-3000:]
  if len(watched.starts()) == lives:
    doing = 'starting'
  elif watched.is_evaluating():
    doing = 'evaluating'
  else:
    doing = 'writing a checkpoint' if watched.is_writing() else 'training'
  return Kill(doing, watched.last_step())


def check_running(processes) -> None:
  for process in processes:
    if process.poll() is not None:
      pytest.fail(f'it ended too early: {process.communicate()[0][-3000:]}')


def finish(processes) -> None:
  for process, printed in zip(processes, hosts.outputs(processes, 1800), strict=True):
    assert process.returncode == 0, printed[-3000:]


def arrays(folder):
  """The latest step, and its arrays; they may have been saved on several hosts."""
  import orbax.checkpoint as ocp

  latest = checkpoint.Checkpoints(folder, create=False).latest
  path = folder / f'checkpoints/{latest}/state'
  reader = ocp.PyTreeCheckpointer()
  as_numpy = lambda _: ocp.RestoreArgs(restore_type=np.ndarray)
  like = jax.tree.map(as_numpy, reader.metadata(path).item_metadata.tree)
  return latest, reader.restore(path, restore_args=like)


def reported(folder) -> list[dict]:
  """Logged values of each step, without the speed."""
  rows = writers.read_metrics(folder)
  return [{k: v for k, v in row.items() if k != 'images_per_second'} for row in rows]


@pytest.mark.long
@pytest.mark.parametrize('name', RUNS)
def test_a_run_killed_many_times_ends_like_an_uninterrupted_one(name, tmp_path, capsys):
  for workdir in (tmp_path / 'whole', tmp_path / 'killed'):
    if RUNS[name].after:
      finish(start(workdir, RUNS[name].after, steps=8))
  began, steps = time.monotonic(), KILLS * STEPS_PER_KILL
  finish(start(tmp_path / 'whole', name))
  uninterrupted = time.monotonic() - began
  expected = Watched(tmp_path / 'whole', name)
  watched = Watched(tmp_path / 'killed', name)
  rng = random.Random(0)
  kills, startup = [], 20.0
  for moment in itertools.islice(itertools.cycle(MOMENTS), KILLS):
    lives, begun = len(watched.starts()), time.monotonic()
    processes = start(tmp_path / 'killed', name)
    if not kills:
      while len(watched.starts()) == lives:
        check_running(processes)
        time.sleep(0.01)
      startup = time.monotonic() - begun
    kills.append(kill(processes, watched, moment, rng, startup))
  finish(start(tmp_path / 'killed', name))

  # Every start but the first follows a kill; not every killed process logged a step.
  reached, lost = 0, []
  for line in watched.lines():
    if match := re.search(r' step (\d+)/', line):
      reached = int(match[1])
    elif match := re.search(r': steps (\d+) to', line):
      lost.append(reached - int(match[1]) + 1)
  tally = collections.Counter(kill.doing for kill in kills)
  summary = {
    'kills': len(kills),
    **tally,
    'steps': steps,
    'steps lost, most': max(lost),
    'steps lost, all': sum(lost),
    'seconds, uninterrupted': round(uninterrupted),
    'seconds, all': round(time.monotonic() - began),
  }
  with capsys.disabled():
    print(f'\nsoak of {name}: {json.dumps(summary)}')
  least = KILLS // 8
  assert tally['writing a checkpoint'] >= least and tally['evaluating'] >= least, tally
  # Steps since the last complete checkpoint; the next one waits until that is written.
  assert max(lost) <= 2 * EVERY['checkpoint']
  step, wanted = arrays(expected.folder)
  again, found = arrays(watched.folder)
  assert step == again == steps
  same = jax.tree.map(np.array_equal, wanted, found)
  assert all(jax.tree.leaves(same)), same
  assert reported(watched.folder) == reported(expected.folder)
  kept = [sorted(p.name for p in (w.folder / 'checkpoints').iterdir()) for w in (expected, watched)]
  assert kept[0] == kept[1]
  assert not (watched.folder / 'damaged').exists()
  assert not [path for path in watched.folder.rglob('*.part*')]


def damage(fault):
  """Damages the largest file of the newest checkpoint."""

  def do(folder: pathlib.Path) -> None:
    newest = folder / f'checkpoints/{Watched(folder.parent).saved()}'
    files = [path for path in newest.rglob('*') if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    path.unlink()
    if fault == 'truncated':
      path.write_bytes(content[: len(content) // 2])
    elif fault == 'zeroed':
      path.write_bytes(bytes(len(content)))
    elif fault == 'one bit flipped':
      content[len(content) // 2] ^= 4
      path.write_bytes(content)

  return do


def empty_newest(folder: pathlib.Path) -> None:
  newest = folder / f'checkpoints/{Watched(folder.parent).saved()}'
  shutil.rmtree(newest)
  newest.mkdir()


def cut_metrics(folder: pathlib.Path) -> None:
  path = folder / writers.METRICS_FILE
  path.write_bytes(path.read_bytes()[:-40])


def leave_lock(folder: pathlib.Path) -> None:
  (folder / '.lock').write_text('process 1 on a host that is gone\n')


FAULTS = {
  'nothing': lambda folder: None,
  'newest checkpoint: a file missing': damage('missing'),
  'newest checkpoint: a file truncated': damage('truncated'),
  'newest checkpoint: a file zeroed': damage('zeroed'),
  'newest checkpoint: one bit flipped': damage('one bit flipped'),
  'newest checkpoint: an empty folder': empty_newest,
  'metrics.jsonl cut in a line': cut_metrics,
  'the lock of a dead process': leave_lock,
}


@pytest.mark.long
def test_a_real_run_survives_every_fault(tmp_path, capsys):
  """Stopped by SIGTERM, damaged, and restarted."""
  steps = 40
  finish(start(tmp_path / 'whole', steps=steps))
  stopped = Watched(tmp_path / 'stopped')
  (process,) = start(tmp_path / 'stopped', steps=steps)
  while stopped.last_step() < steps // 2:
    check_running([process])
    time.sleep(0.01)
  process.terminate()
  process.communicate(timeout=300)
  assert process.returncode == 75
  reached = stopped.last_step()
  assert steps // 2 <= stopped.saved() == reached < steps
  _, wanted = arrays(tmp_path / 'whole/translate')
  lines = []
  for fault, do in FAULTS.items():
    workdir = tmp_path / 'again'
    shutil.copytree(tmp_path / 'stopped', workdir)
    do(workdir / 'translate')
    finish(start(workdir, steps=steps))
    begun = Watched(workdir).starts()[-1]
    damaged = workdir / 'translate/damaged'
    size = sum(path.stat().st_size for path in damaged.rglob('*') if path.is_file())
    step, found = arrays(workdir / 'translate')
    assert step == steps
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, wanted, found))), fault
    lost = reached + 1 - begun
    assert lost == 0 or ('newest' in fault and lost <= EVERY['checkpoint']), (fault, lost)
    lines.append(f'| {fault} | yes | {lost} | {size} |')
    shutil.rmtree(workdir)
  with capsys.disabled():
    print('\n' + '\n'.join(lines))
