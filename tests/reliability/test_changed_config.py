"""A stage goes on with the configuration that it was trained with, unless it is told otherwise."""

import json

import numpy as np
import pytest
import toy

from step_jax import config as config_lib
from step_jax.errors import RunError
from step_jax.train import writers


def test_another_configuration_is_refused_field_by_field(tmp_path):
  folder = toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
  with pytest.raises(RunError) as refused:
    toy.train(tmp_path, **{'optimizer.lr': 0.25, 'batch_size': 4, 'every.log': 3})
  lines = str(refused.value).splitlines()
  assert lines[1:-1] == ['  batch_size: 2 -> 4', '  optimizer.lr: 0.5 -> 0.25']
  assert '--change-config' in lines[-1] and '--workdir' in lines[-1]
  assert before == {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_told_to_it_goes_on_and_keeps_the_new_one(tmp_path):
  folder = toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  toy.train(tmp_path, change_config=True, **{'optimizer.lr': 0.25})
  assert config_lib.read(folder).optimizer.lr == 0.25
  assert 'from here on optimizer.lr: 0.5 -> 0.25' in (folder / 'train.log').read_text()
  toy.train(tmp_path, **{'optimizer.lr': 0.25})
  assert [row['step'] for row in writers.read_metrics(folder) if 'loss' in row] == [*range(1, 11)]


def test_length_and_what_is_due_when_may_change(tmp_path, whole):
  toy.train(tmp_path, **{'schedule.total_kimg': 4.0, 'every.checkpoint': 3, 'every.log': 4})
  folder = toy.train(tmp_path)
  step, found = toy.final(folder)
  assert step == 10 and np.array_equal(found, whole)
  assert 'schedule.total_kimg: 4.0 -> 10.0' in (folder / 'train.log').read_text()


@pytest.mark.parametrize('kept', [None, '{"stage": "t'])
def test_a_configuration_of_nothing_that_was_trained_binds_nobody(tmp_path, kept):
  (tmp_path / 'toy').mkdir()
  (tmp_path / 'toy/config.json').write_text(kept or json.dumps({'batch_size': 7}))
  assert toy.final(toy.train(tmp_path, **{'optimizer.lr': 0.25}))[0] == 10


def test_a_field_that_an_older_version_did_not_know_is_no_change(tmp_path):
  folder = toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  old = json.loads((folder / 'config.json').read_text())
  del old['optimizer']['b1'], old['dtype']
  (folder / 'config.json').write_text(json.dumps(old))
  assert toy.final(toy.train(tmp_path))[0] == 10
  assert config_lib.read(folder).optimizer.b1 == 0.9


def test_a_damaged_configuration_is_named(tmp_path):
  folder = toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  (folder / 'config.json').write_bytes(bytes(300))
  with pytest.raises(RunError, match='config.json: is damaged'):
    toy.train(tmp_path)


def test_the_same_pictures_by_another_path_are_no_change(tmp_path, monkeypatch):
  from step_jax.train import run

  monkeypatch.chdir(tmp_path)
  config = toy.make_config()
  config.data = dict(path='pictures')
  folder = tmp_path / 'toy'
  (folder / 'checkpoints/3').mkdir(parents=True)
  config_lib.save(config, folder)
  config.data.path = str(tmp_path / 'pictures')
  assert run._changes(config, folder) == {}
  config.data.path = str(tmp_path / 'others')
  assert list(run._changes(config, folder)) == ['data.path']


def test_both_commands_have_the_flag(tmp_path, monkeypatch):
  from step_jax import cli, main, methods

  told = []
  monkeypatch.setattr(methods, 'train', lambda config, workdir, change: told.append(change))
  config = f'--config={config_lib.stage_file("mapper")}:swatches'
  for flag in ([], ['--change-config']):
    assert main.main([config, f'--workdir={tmp_path}', *flag]) == 0
    verb = ['train', 'mapper', '--data', 'swatches', '--workdir', str(tmp_path)]
    assert cli.main([*verb, *flag]) == 0
  assert told == [False, False, True, True]
