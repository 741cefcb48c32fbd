"""A training process that is killed many times (SIGKILL) ends like an uninterrupted one."""

import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax.train import checkpoint, writers

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 600
EVERY = {'log': 1, 'checkpoint': 3, 'evaluate': 10}
# When to kill the process, in this order.
MOMENTS = ('any', 'checkpoint', 'any', 'evaluation') * 6
FIELDS = {
  'batch_size': 2,
  'init_from': '',
  'eval_pictures': 16,
  'features.weights': 'random',
  'features.taps': ('conv1',),
  'features.tap_weights': (1.0,),
  'model.encoder_width': 4,
  'model.generator_width': 4,
  'model.discriminator_width': 4,
  'model.num_scales': 2,
  'schedule.fixed_kimg': STEPS * 2 / 2000,
  'schedule.total_kimg': STEPS * 2 / 1000,
  **{f'every.{name}': steps for name, steps in EVERY.items()},
}


@dataclasses.dataclass(frozen=True)
class Kill:
  """Where a process was killed: its activity and the last logged step."""

  doing: str
  step: int


def start(workdir, **fields):
  config = f'{config_lib.stage_file("translate")}:swatches,size=32,features=squeezenet1_1'
  return subprocess.Popen(
    [sys.executable, '-m', 'step_jax.main', f'--config={config}', f'--workdir={workdir}']
    + [f'--config.{name}={value}' for name, value in {**FIELDS, **fields}.items()],
    stderr=subprocess.PIPE, text=True, cwd=ROOT,
    env={
      **os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    },
  )  # fmt: skip


class Watched:
  """The folder of a stage, observed from outside."""

  def __init__(self, workdir: pathlib.Path):
    self.folder = workdir / 'translate'
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


def kill(process, watched: Watched, moment: str, rng: random.Random, startup: float) -> Kill:
  """Waits for the moment, kills the process, and returns its actual activity."""
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
      assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][
        -3000:
      ]
      time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.01 if moment == 'checkpoint' else 0.1))
  assert process.poll() is None, 'it ended before it could be killed: let it train longer'
  process.kill()
  process.communicate()
  if len(watched.starts()) == lives:
    doing = 'starting'
  elif watched.is_evaluating():
    doing = 'evaluating'
  else:
    doing = 'writing a checkpoint' if watched.is_writing() else 'training'
  return Kill(doing, watched.last_step())


def finish(process) -> None:
  _, errors = process.communicate(timeout=900)
  assert process.returncode == 0, errors[-3000:]


def arrays(folder):
  import orbax.checkpoint as ocp

  latest = checkpoint.Checkpoints(folder, create=False).latest
  return latest, ocp.PyTreeCheckpointer().restore(folder / f'checkpoints/{latest}/state')


def reported(folder) -> list[dict]:
  """Logged values of each step, without the speed."""
  rows = writers.read_metrics(folder)
  return [{k: v for k, v in row.items() if k != 'images_per_second'} for row in rows]


@pytest.mark.long
def test_a_run_killed_many_times_ends_like_an_uninterrupted_one(tmp_path, capsys):
  began = time.monotonic()
  finish(start(tmp_path / 'whole'))
  uninterrupted = time.monotonic() - began
  expected = Watched(tmp_path / 'whole')
  watched = Watched(tmp_path / 'killed')
  rng = random.Random(0)
  kills, startup = [], 20.0
  for moment in MOMENTS:
    lives, begun = len(watched.starts()), time.monotonic()
    process = start(tmp_path / 'killed')
    if not kills:
      while len(watched.starts()) == lives:
        time.sleep(0.01)
      startup = time.monotonic() - begun
    kills.append(kill(process, watched, moment, rng, startup))
  finish(start(tmp_path / 'killed'))

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
    'steps': STEPS,
    'steps lost, most': max(lost),
    'steps lost, all': sum(lost),
    'seconds, uninterrupted': round(uninterrupted),
    'seconds, all': round(time.monotonic() - began),
  }
  with capsys.disabled():
    print(f'\nsoak: {json.dumps(summary)}')
  assert len(kills) >= 20
  assert tally['writing a checkpoint'] >= 3 and tally['evaluating'] >= 3, tally
  # Steps since the last complete checkpoint; the next one waits until that is written.
  assert max(lost) <= 2 * EVERY['checkpoint']
  step, wanted = arrays(expected.folder)
  again, found = arrays(watched.folder)
  assert step == again == STEPS
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
  length = {'schedule.fixed_kimg': steps / 1000, 'schedule.total_kimg': steps * 2 / 1000}
  finish(start(tmp_path / 'whole', **length))
  stopped = Watched(tmp_path / 'stopped')
  process = start(tmp_path / 'stopped', **length)
  while stopped.last_step() < steps // 2:
    assert process.poll() is None, process.communicate()[1][-3000:]
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
    finish(start(workdir, **length))
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
