"""Communication between devices, read from compiled programs."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

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


@pytest.mark.long
def test_the_bytes_of_a_step_are_those_of_the_docs():
  done = subprocess.run(
    [sys.executable, HERE / 'collectives.py'], check=True, stdout=subprocess.PIPE, text=True
  )
  told = re.search(
    r'all-reduces of \*\*([\d.]+) MB\*\*', (ROOT / 'docs/performance.md').read_text()
  )
  found = json.loads(done.stdout)
  assert set(found) == {'all-reduce'}
  assert found['all-reduce'] == pytest.approx(1e6 * float(told[1]), rel=0.005)
