"""Weights & Biases, with a stand-in for its library: data of new and of resumed runs."""

import sys
import types

import numpy as np
import pytest
import toy

from step_jax import cli
from step_jax.errors import ConfigError, RunError
from step_jax.train import wandb_writer


class Run:
  def __init__(self, **given):
    self.given, self.rows, self.defined, self.finished = given, [], [], False

  def define_metric(self, *names, **options):
    self.defined.append((names, options))

  def log(self, row):
    self.rows.append(row)

  def finish(self):
    self.finished = True


@pytest.fixture
def runs(monkeypatch):
  """Runs that were started."""
  started = []

  def init(**given):
    started.append(Run(**given))
    return started[-1]

  library = types.ModuleType('wandb')
  library.init, library.Image = init, lambda array: ('image', array.shape, array.dtype)
  monkeypatch.setitem(sys.modules, 'wandb', library)
  library.__spec__ = types.SimpleNamespace(name='wandb')
  return started


def test_a_run_sends_what_it_writes(runs, tmp_path):
  folder = toy.train(tmp_path / 'mine', wandb='gallery')
  (run,) = runs
  assert run.given['project'] == 'gallery' and run.given['name'] == 'mine/toy'
  assert run.given['dir'] == str(folder.parent) and run.given['config']['optimizer']['lr'] == 0.5
  assert [row['step'] for row in run.rows if 'loss' in row] == list(range(1, 11))
  assert [row['step'] for row in run.rows if 'score' in row] == [4, 8, 10]
  images = [row for row in run.rows if 'samples/picture' in row]
  assert images[0] == {'step': 4, 'samples/picture': ('image', (8, 8, 3), np.uint8)}
  assert run.finished and (folder / 'metrics.jsonl').is_file()


def test_a_resumed_run_continues_its_page(runs, tmp_path):
  toy.train(tmp_path, wandb='gallery', **{'schedule.total_kimg': 4.0})
  toy.train(tmp_path, wandb='gallery')
  first, second = runs
  assert first.given['id'] == second.given['id'] and second.given['resume'] == 'allow'
  assert [row['step'] for row in second.rows if 'loss' in row] == list(range(5, 11))


def test_it_may_be_asked_for_on_resume(runs, tmp_path):
  toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  assert not runs and not (tmp_path / 'toy' / wandb_writer.FILE).exists()
  toy.train(tmp_path, wandb='gallery')
  assert len(runs) == 1


def test_without_the_library(tmp_path, monkeypatch):
  monkeypatch.setattr(wandb_writer.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ConfigError, match=r"--wandb gallery: .*pip install -e '\.\[wandb\]'"):
    toy.train(tmp_path, wandb='gallery')


def test_without_a_login(runs, tmp_path, monkeypatch):
  def init(**given):
    raise ValueError('api_key not configured\nmore')

  monkeypatch.setattr(sys.modules['wandb'], 'init', init)
  with pytest.raises(RunError, match='api_key not configured.*WANDB_MODE=offline'):
    toy.train(tmp_path, wandb='gallery')


def test_the_flag_sets_the_field():
  from step_jax.cli import training

  args = cli.parse(
    ['train', 'pretrain', '--workdir', 'x', '--data', 'swatches', '--wandb', 'gallery']
  )
  assert training.train_config(args).wandb == 'gallery'
