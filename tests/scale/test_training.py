"""Training on one device, several devices and several hosts is the same; failing hosts."""

import base64
import json
import re
import signal

import hosts
import jax
import numpy as np
import pytest
import tiny

from step_jax import config as config_lib
from step_jax import methods
from step_jax.train import checkpoint, writers
from step_jax.train import mesh as mesh_lib

FIELDS = {
  **tiny.FIELDS,
  'batch_size': 8,
  'model.generator_width': 8,
  'model.num_scales': 1,
  'init_from': '',
  'train_encoder': True,
  # At 16 px the discriminator's last maps have so few pixels that rounding of 1e-7 changes
  # gradients by 5 %, five times as much.
  'data.crop': (32, 32),
  'every.evaluate': 3,
  'schedule.fixed_kimg': 0.024,
  'schedule.total_kimg': 0.024,
  'every.log': 1,
  # Adam's first update has the size of the rate for any gradient: where that is near zero, rounding
  # decides the sign. At this rate the moves are negligible; mean squares of gradients are compared.
  'optimizer.generator_lr': 1e-9,
  'optimizer.discriminator_lr': 1e-9,
}


def arguments(workdir, folder, stage='translate', **fields):
  config = config_lib.load(config_lib.stage_file(stage))
  known = dict(config_lib.flatten(config))
  wanted = {**FIELDS, 'data.path': str(folder), **fields}
  given = [f'--config.{name}={value}' for name, value in wanted.items() if name in known]
  return [
    '-m', 'step_jax.main', f'--config={config_lib.stage_file(stage)}',
    f'--workdir={workdir}', *given,
  ]  # fmt: skip


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  return tiny.write_pictures(tmp_path_factory.mktemp('pictures'), 32, 32)


@pytest.fixture(scope='module')
def train(pictures, tmp_path_factory):
  """Trains stage 2 on hosts and devices; returns log rows, final state and output."""

  def run(count, devices, **fields):
    workdir = tmp_path_factory.mktemp('run')
    processes = hosts.start(devices, *[arguments(workdir, pictures, **fields)] * count)
    printed = hosts.outputs(processes, 300)
    assert [process.returncode for process in processes] == [0] * count, printed
    folder = workdir / 'translate'
    return writers.read_metrics(folder), restore(folder), printed

  return run


def restore(folder):
  """The final state, on the device of this process."""
  shapes = methods.abstract_step(config_lib.read(folder), config_lib.read(folder).data.crop).state
  sharding = mesh_lib.replicated(mesh_lib.make_mesh())
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
  checkpoints = checkpoint.Checkpoints(folder, create=False)
  state = checkpoints.restore(like)
  checkpoints.close()
  return state


@pytest.fixture(scope='module')
def alone(train):
  return train(1, 1)


def compare(alone, others):
  for row, other in zip(alone[0], others[0], strict=True):
    assert row.keys() == other.keys() and row['step'] == other['step']
    for name in set(row) - {'images_per_second'}:
      # Rounding changes gradients more than losses; see below.
      rtol = 2e-2 if name.startswith('grad_norm') else 1e-3
      np.testing.assert_allclose(other[name], row[name], rtol=rtol, atol=1e-5, err_msg=name)
  # Three updates, each of which may have the other sign.
  moves = 6 * FIELDS['optimizer.generator_lr']
  for tree, tolerance, slack in (
    ('params', 1e-6, moves),
    ('ema', 1e-6, moves),
    # Rounding of 1e-7 can move a pixel across the kink of an activation or of the L1 distance,
    # which changes gradients by up to 1 %, and their squares by twice that.
    ('opt', 5e-2, 1e-12),
  ):
    pairs = zip(*(jax.tree.leaves(getattr(run[1], tree)) for run in (alone, others)), strict=True)
    for x, y in pairs:
      assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(x) + slack * x.size**0.5, (
        tree,
        x.shape,
      )


def test_two_hosts_train_as_one(train, alone):
  found = train(2, 2)
  compare(alone, found)
  # The second host takes part in the computation and writes nothing.
  assert [line for line in found[2][0].splitlines() if 'val_psnr' in line]


# Stage 1, which compiles quickly; at its default rate, which is well above rounding.
TRIPLETS = {
  'model.encoder_width': 16,
  'batch_size': 8,
  'schedule.fixed_kimg': 0.032,
  'schedule.total_kimg': 0.032,
  'every.log': 1,
  'every.evaluate': 2,
}


def test_training_moves_from_eight_sharded_devices_to_one(picture_folder, tmp_path):
  """Batches and results are the same as on one device."""
  whole = tiny.train('pretrain', picture_folder, tmp_path / 'whole', **TRIPLETS)
  half = {**tiny.FIELDS, **TRIPLETS, 'schedule.total_kimg': 0.016, 'fsdp': True}
  command = arguments(tmp_path / 'moved', picture_folder, 'pretrain', **half)
  printed, statuses = ended(hosts.start(8, command))
  assert statuses == [0], printed
  moved = tmp_path / 'moved/pretrain'
  # The shardings that orbax stored with the arrays.
  kept = json.loads((moved / 'checkpoints/2/state/_sharding').read_text())
  lay = {base64.b64decode(name).decode(): json.loads(value) for name, value in kept.items()}
  large = [name for name, value in lay.items() if 'data' in value['partition_spec']]
  for part in ('params', 'opt'):
    assert [name for name in large if name.startswith(part) and 'kernel' in name], sorted(lay)
  assert {tuple(value['shape']) for value in lay.values()} == {(8,)}
  assert tiny.train('pretrain', picture_folder, tmp_path / 'moved', **TRIPLETS) == moved
  assert 'steps 3 to 4' in (moved / 'train.log').read_text()
  rows = writers.read_metrics(whole), writers.read_metrics(moved)
  for row, other in zip(*rows, strict=True):
    assert row.keys() == other.keys() and row['step'] == other['step']
    for name in set(row) - {'images_per_second'}:
      np.testing.assert_allclose(other[name], row[name], rtol=1e-4, atol=1e-6, err_msg=name)
  states = [jax.tree.leaves(restore(folder)) for folder in (whole, moved)]
  for x, y in zip(*states, strict=True):
    assert np.linalg.norm(x - y) <= 1e-3 * np.linalg.norm(x) + 1e-6


@pytest.mark.long
def test_sharded_and_replicated_states_train_equally(train, alone):
  compare(alone, train(2, 2, fsdp=True))


def test_a_host_that_fails_stops_all_with_its_message(pictures, tmp_path):
  """The second host finds no images, and the first one would wait for it."""
  commands = [arguments(tmp_path, folder) for folder in (pictures, tmp_path / 'no such')]
  printed, statuses = ended(hosts.start(1, *commands))
  assert statuses == [2, 2], printed
  message = re.search('step-jax: (.*no such.*)', printed[1])[1]
  assert f'step-jax: host 1 has stopped, and so does this one: {message}' in printed[0]


def test_a_host_that_dies_stops_the_other(pictures, tmp_path):
  fields = {**TRIPLETS, 'schedule.total_kimg': 800, 'every.evaluate': 10**5}
  command = arguments(tmp_path, pictures, 'pretrain', **fields)
  first, second = hosts.start(1, command, command)
  while 'step 1/' not in (line := first.stdout.readline()):
    assert line, 'ended before its first step'
  second.send_signal(signal.SIGKILL)
  printed, statuses = ended([first, second])
  assert statuses[0] not in (0, None), printed
  assert 'step-jax: another host has ended' in printed[0], printed


def test_a_host_whose_others_never_start_says_so():
  code = 'from step_jax.train import hosts; hosts._PATIENCE = 3; hosts.join()'
  for alone in (0, 1):
    processes = hosts.start(1, ['-c', code], ['-c', code])
    processes[1 - alone].kill()
    printed, statuses = ended(processes)
    assert statuses[alone] == 2, printed
    (line,) = [line for line in printed[alone].splitlines() if line.startswith('step-jax: ')]
    assert 'not all hosts have connected within 3 s: start the same command' in line


def ended(processes):
  """Outputs and exit statuses of processes, all of which must end by themselves."""
  try:
    printed = hosts.outputs(processes, 120)
  finally:
    for process in processes:
      process.kill()
  return printed, [process.returncode for process in processes]
