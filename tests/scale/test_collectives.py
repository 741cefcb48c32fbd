"""Communication between devices, read from compiled programs."""

import json
import pathlib
import re
import subprocess
import sys

import collectives
import pytest

from step_jax import config as config_lib
from step_jax.bench import case

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent

# Part of a program as XLA prints it; the last line has an operand, not an operation.
PROGRAM = """
  %all-reduce.1 = f32[3,4]{1,0} all-reduce(%a), channel_id=1, to_apply=%add
  %all-reduce.2 = (f32[8]{0}, bf16[2,2]{1,0}) all-reduce(%b, %c), channel_id=2, to_apply=%add
  %all-gather.1 = f32[16]{0} all-gather(%d), channel_id=3, dimensions={0}
  %add.1 = f32[3,4]{1,0} add(%all-reduce.1, %e)
"""


def test_bytes_are_those_of_the_results():
  assert case.collective_bytes(PROGRAM) == {
    'all-reduce': 4 * 12 + 4 * 8 + 2 * 4, 'all-gather': 4 * 16
  }  # fmt: skip


SMALL = {
  'model.encoder_width': 4,
  'model.generator_width': 4,
  'model.discriminator_width': 4,
  'model.num_scales': 1,
  'model.max_channels': 4,
  'model.style_dim': 8,
  'model.mapping_depth': 2,
  'model.encoder_size': 64,
  'model.body_width': 4,
  'model.body_depths': '1,1,1,1',
  'model.label_width': 4,
  'model.spade_width': 4,
  'features.net': 'squeezenet1_1',
  'features.taps': "('conv1',)",
  'features.tap_weights': '1.0,',
  'loss.lpips': 0.0,
}


def measure(stage, *options, **fields):
  known = config_lib.stage_module(stage).FIELDS
  given = [f'{name}={value}' for name, value in fields.items() if name in known]
  command = [sys.executable, HERE / 'collectives.py', stage, *given, *options]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  return json.loads(done.stdout)


@pytest.mark.parametrize('stage', ['pretrain', 'finetune', 'psp', 'superstylenet'])
def test_devices_exchange_only_sums(stage):
  """No step gathers, moves or permutes images between devices."""
  found = measure(stage, '--size=64', **SMALL)
  assert set(found['collectives']) == {'all-reduce'}


@pytest.mark.long
def test_the_bytes_of_a_step_are_those_of_the_docs():
  text = (ROOT / 'docs/performance.md').read_text()
  rows = re.findall(r'^\| `(\w+)` \| [\d.]+ M \| ([\d.]+) MB \|', text, re.MULTILINE)
  assert [stage for stage, _ in rows] == list(collectives.STAGES)
  for stage, told in rows:
    found = measure(stage)['collectives']
    assert set(found) == {'all-reduce'}
    assert found['all-reduce'] == pytest.approx(1e6 * float(told), rel=0.005), stage
