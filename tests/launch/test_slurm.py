"""The SLURM script, with a stand-in for srun."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_starts_the_stage_on_every_node(tmp_path):
  srun = tmp_path / 'srun'
  srun.write_text('#!/usr/bin/env bash\npwd\nprintf "%s\\n" "$@"\nexit 3\n')
  srun.chmod(0o755)
  path = f'{tmp_path}:{os.environ["PATH"]}'
  environment = {**os.environ, 'PATH': path, 'SLURM_SUBMIT_DIR': str(tmp_path)}
  command = ['bash', ROOT / 'launch/slurm.sbatch', '--config=a.py:b c', '--workdir=d']
  done = subprocess.run(command, env=environment, capture_output=True, text=True)
  assert done.returncode == 3
  where, _, *words = done.stdout.splitlines()
  assert where == str(tmp_path)
  assert words[1:] == ['-m', 'step_jax.main', '--distributed', '--config=a.py:b c', '--workdir=d']
