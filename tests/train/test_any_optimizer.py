"""Optimizers of optax in a whole stage with a resume, and their metrics."""

import json
import subprocess
import sys

import numpy as np
import optax
import pytest
import tiny

from step_jax.train import optimizers


@pytest.fixture(scope='module')
def trained(picture_folder, tmp_path_factory):
  """Pre-training with optax's adamw, whose decay uses the parameters: 4 steps, then 2 more."""
  workdir = tmp_path_factory.mktemp('run')
  # The transforms of step_jax return the direction to subtract, so the rate is negative.
  adamw = lambda b1, b2: optax.adamw(-1.0, b1, b2, weight_decay=0.1)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(optimizers, 'scale_by_tf_adam', adamw)
    for kimg in (0.016, 0.024):
      folder = tiny.train('pretrain', picture_folder, workdir, **{'schedule.total_kimg': kimg})
  return folder


def test_adamw_trains_and_resumes(trained):
  rows = [json.loads(line) for line in (trained / 'metrics.jsonl').open()]
  assert [row['step'] for row in rows if 'triplet' in row] == [2, 3, 4, 6]
  assert all(np.isfinite(value) for row in rows for value in row.values())


def test_the_log_has_a_table_of_the_parameters(trained):
  text = (trained / 'train.log').read_text()
  # One table per start.
  assert text.count('parameters:\n+') == 2
  assert '| style_encoder/mean/kernel ' in text and '\nTotal: ' in text


def test_the_table_needs_no_tensorflow():
  program = 'import sys; from step_jax.train import run; sys.exit("tensorflow" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', program]).returncode == 0
