"""Commands with long names, terminals without Unicode, and accounts without a home folder."""

import io
import os
import pwd
import shutil
import subprocess
import sys

import pytest
from test_cli import PRETRAIN, refuse, run
import tiny

from step_jax import cli, places
from step_jax import main as main_lib
from step_jax.data import builder, open_data
from step_jax.errors import ConfigError
from step_jax.train import lock

LONG = 'n' * 240


def test_a_folder_of_images_and_a_run_with_long_names(capsys, picture_folder, tmp_path):
  folder, workdir = tmp_path / LONG, tmp_path / 'runs' / LONG
  shutil.copytree(picture_folder, folder)
  fields = [f'--config.{name}={tiny.FIELDS[name]}' for name in PRETRAIN]
  status, out, _ = run(
    capsys, 'train', 'pretrain', '--data', folder, '--workdir', workdir,
    '--weights', 'random', '--kimg', '0.008', *fields,
  )  # fmt: skip
  assert status == 0 and (workdir / 'pretrain/checkpoints').is_dir()
  longest = max(len(path.name) for path in places.cache().rglob('*'))
  assert longest < 200


def test_long_names_that_differ_at_the_end_are_two_data_sets(picture_folder, tmp_path):
  for end, count in (('a', 24), ('b', 23)):
    folder = tmp_path / (LONG + end)
    shutil.copytree(picture_folder, folder)
    if count == 23:
      (folder / 'train/00.png').unlink()
    assert open_data(str(folder)).splits['train'] == count


def test_a_prepared_set_may_have_the_longest_name(picture_folder, tmp_path):
  from step_jax.data import folders

  made = builder.prepare(folders.scan(picture_folder), tmp_path / ('n' * 255))
  assert made.splits == {'train': 24, 'val': 5}


def test_a_stage_may_have_the_longest_name(tmp_path):
  with lock.hold(tmp_path / ('n' * 255)):
    assert [path.name for path in tmp_path.iterdir()] == ['n' * 255]


def test_a_name_that_is_too_long_is_a_one_line_error(capsys, tmp_path):
  train = ['train', 'pretrain', '--weights', 'random', '--workdir', tmp_path / 'run']
  assert 'name too long' in refuse(capsys, *train, '--data', tmp_path / ('n' * 300)).lower()


@pytest.fixture
def homeless(monkeypatch):
  """A process without HOME and with an unknown account."""

  def unknown(uid):
    raise KeyError(uid)

  monkeypatch.delenv('HOME')
  monkeypatch.setattr(pwd, 'getpwuid', unknown)
  for name in ('STEP_JAX_CACHE', 'STEP_JAX_WEIGHTS', 'JAX_COMPILATION_CACHE_DIR'):
    monkeypatch.delenv(name, raising=False)
  yield


def test_without_a_home_folder_one_line_says_what_to_set(capsys, homeless, monkeypatch, tmp_path):
  assert 'set HOME, or STEP_JAX_CACHE' in refuse(capsys, 'weights', 'list')
  with pytest.raises(ConfigError, match='set HOME, or STEP_JAX_WEIGHTS'):
    places.weights()
  monkeypatch.setenv('STEP_JAX_CACHE', str(tmp_path))
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path))
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path))
  assert run(capsys, 'weights', 'list')[0] == 0


@pytest.mark.parametrize('encoding', ['latin-1', 'ascii'])
def test_unprintable_characters_are_escaped(encoding, trained_run, monkeypatch, tmp_path):
  workdir = shutil.copytree(trained_run[0], tmp_path / 'run')
  terminal = io.TextIOWrapper(io.BytesIO(), encoding)
  monkeypatch.setattr(sys, 'stdout', terminal)
  assert cli.main(['evaluate', '--workdir', str(workdir), '--groups', 'reconstruction']) == 0
  terminal.flush()
  text = terminal.buffer.getvalue().decode(encoding)
  assert 'psnr/uint8' in text and r'\u2191' in text


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_output_that_nobody_reads_is_no_error(unbuffered):
  ran = subprocess.run(
    f'"{sys.executable}" -m step_jax.cli data list | true; exit ${{PIPESTATUS[0]}}',
    shell=True, executable='bash', stderr=subprocess.PIPE, text=True,
    env={**os.environ, 'PYTHONUNBUFFERED': unbuffered},
  )  # fmt: skip
  assert (ran.returncode, ran.stderr) == (main_lib.EXIT_CLOSED_OUTPUT, '')


def test_help_is_shown_on_any_terminal(monkeypatch):
  terminal = io.TextIOWrapper(io.BytesIO(), 'ascii')
  monkeypatch.setattr(sys, 'stdout', terminal)
  with pytest.raises(SystemExit) as stop:
    cli.main(['weights', '--help'])
  assert stop.value.code == 0
