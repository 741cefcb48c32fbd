"""A resumed stage keeps its configuration, unless it is changed explicitly."""

import json
import os

import numpy as np
from PIL import Image
import pytest
import toy

from step_jax import config as config_lib
from step_jax import data, methods
from step_jax.data import contents, folders
from step_jax.errors import ConfigError, RunError
from step_jax.train import run, writers


def test_a_changed_configuration_is_refused_field_by_field(tmp_path):
  folder = toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
  with pytest.raises(RunError) as refused:
    toy.train(tmp_path, **{'optimizer.lr': 0.25, 'batch_size': 4, 'every.log': 3})
  lines = str(refused.value).splitlines()
  assert lines[1:-1] == ['  batch_size: 2 -> 4', '  optimizer.lr: 0.5 -> 0.25']
  assert '--change-config' in lines[-1] and '--workdir' in lines[-1]
  assert before == {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_change_config_resumes_and_saves_the_new_configuration(tmp_path):
  folder = toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  toy.train(tmp_path, change_config=True, **{'optimizer.lr': 0.25})
  assert config_lib.read(folder).optimizer.lr == 0.25
  assert 'from here on optimizer.lr: 0.5 -> 0.25' in (folder / 'train.log').read_text('utf-8')
  toy.train(tmp_path, **{'optimizer.lr': 0.25})
  assert [row['step'] for row in writers.read_metrics(folder) if 'loss' in row] == [*range(1, 11)]


def test_length_and_intervals_may_change(tmp_path, whole):
  toy.train(tmp_path, **{'schedule.total_kimg': 4.0, 'every.checkpoint': 3, 'every.log': 4})
  folder = toy.train(tmp_path)
  step, found = toy.final(folder)
  assert step == 10 and np.array_equal(found, whole)
  assert 'schedule.total_kimg: 4.0 -> 10.0' in (folder / 'train.log').read_text('utf-8')


def test_a_misspelt_metric_of_the_best_checkpoint_is_an_error_and_can_be_corrected(tmp_path):
  with pytest.raises(ConfigError, match="best_metric='scor'.*did you mean score.; step 4 is saved"):
    toy.train(tmp_path, best_metric='scor')
  folder = toy.train(tmp_path)
  assert toy.final(folder)[0] == 10 and config_lib.read(folder).best_metric == 'score'


@pytest.mark.parametrize('kept', [None, '{"stage": "t'])
def test_a_configuration_without_training_can_be_changed(tmp_path, kept):
  (tmp_path / 'toy').mkdir()
  (tmp_path / 'toy/config.json').write_text(kept or json.dumps({'batch_size': 7}))
  assert toy.final(toy.train(tmp_path, **{'optimizer.lr': 0.25}))[0] == 10


def test_a_new_field_is_not_a_changed_configuration(tmp_path):
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
  from step_jax import cli, main

  told = []
  monkeypatch.setattr(methods, 'train', lambda config, workdir, change: told.append(change))
  config = f'--config={config_lib.stage_file("mapper")}:swatches'
  for flag in ([], ['--change-config']):
    assert main.main([config, f'--workdir={tmp_path}', *flag]) == 0
    verb = ['train', 'mapper', '--data', 'swatches', '--workdir', str(tmp_path)]
    assert cli.main([*verb, *flag]) == 0
  assert told == [False, False, True, True]


def write_images(folder, names, value=0):
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    Image.new('RGB', (8, 4), (value, 0, 0)).save(folder / name)


@pytest.fixture
def images(tmp_path):
  """A folder without validation images, so that some are held out."""
  folder = tmp_path / 'images'
  write_images(folder, [f'{i}.png' for i in range(20)])
  return folder


def train_on(images, workdir, change_config=False, **fields):
  """Trains the toy stage on a data set, for two steps by default."""
  config = toy.make_config(**{'schedule.total_kimg': 2.0})
  config.data = dict(
    path=str(images), layout='auto', direction='AtoB', val_fraction=0.3, resize=0, unreadable='stop'
  )
  for name, value in fields.items():
    config.update_from_flattened_dict({name.replace('__', '.'): value})
    if name in ('stage', 'init_from'):
      config[name] = value
  return run.train(toy.build, config, workdir, change_config)


def refused(action) -> str:
  with pytest.raises(RunError) as error:
    action()
  return str(error.value)


def test_a_stage_resumes_only_on_its_images(images, tmp_path):
  folder = train_on(images, tmp_path)
  recorded = contents.read(folder)
  assert {name: len(examples) for name, examples in recorded.items()}.keys() == {'train', 'val'}
  new = [f'new{i}.png' for i in range(30)]
  held = sorted(folders.hold_out(new, 0.3))
  write_images(images, new)
  os.utime(images / '3.png', (1, 1))  # Modification times are ignored.
  write_images(images, ['5.png'], 255)
  (images / '7.png').unlink()
  split = {name: split for split, examples in recorded.items() for name in examples}
  lines = refused(lambda: train_on(images, tmp_path, schedule__total_kimg=4.0)).splitlines()
  assert lines[0].endswith('was trained on other images than those there are now:')
  count = len(new) - len(held)
  added = f'  {count} added to train: new'
  assert [line for line in lines if line.startswith(added)] and len(lines) == 6, lines
  assert f'  {len(held)} added to val: {", ".join(held[:3])}' in '\n'.join(lines)
  assert f'  1 removed from {split["7.png"]}: 7.png' in lines
  assert f'  1 changed in {split["5.png"]}: 5.png' in lines
  assert '--change-config' in lines[-1] and '--workdir' in lines[-1]
  assert contents.read(folder) == recorded

  train_on(images, tmp_path, change_config=True, schedule__total_kimg=4.0)
  assert f'accepted by --change-config: 1 removed from {split["7.png"]}' in (
    folder / 'train.log'
  ).read_text('utf-8')
  assert contents.read(folder) == contents.of(data.open_data(str(images), val_fraction=0.3))
  train_on(images, tmp_path, schedule__total_kimg=5.0)


def test_images_that_change_splits_are_named():
  old = {'train': {'a': '1', 'b': '2'}, 'val': {'c': '3'}}
  new = {'train': {'a': '1', 'c': '3'}, 'val': {'b': '2'}}
  assert contents.differences(old, new) == [
    '1 moved from train to val: b',
    '1 moved from val to train: c',
  ]
  assert contents.differences(old, old) == []


def test_a_stage_without_a_record_resumes_only_where_its_split_is_sure(images, tmp_path):
  folder = train_on(images, tmp_path)
  (folder / contents.FILE).unlink()
  line = refused(lambda: train_on(images, tmp_path, schedule__total_kimg=4.0))
  assert 'has no record of its images' in line and '\n' not in line and '--change-config' in line
  train_on(images, tmp_path, change_config=True, schedule__total_kimg=4.0)
  assert contents.read(folder)

  own = tmp_path / 'own'
  write_images(own / 'train', ['a.png', 'b.png'])
  write_images(own / 'val', ['c.png'])
  folder = train_on(own, tmp_path / 'run')
  (folder / contents.FILE).unlink()
  train_on(own, tmp_path / 'run', schedule__total_kimg=4.0)
  assert contents.read(folder)['val'].keys() == {'val/c.png'}


def test_a_damaged_record_of_images_is_named(images, tmp_path):
  folder = train_on(images, tmp_path)
  for text in ('{"train": ', '{"train": 3}', '{"train": {"a": 3}}', '[]'):
    (folder / contents.FILE).write_text(text)
    assert 'data.json: is damaged' in refused(lambda: train_on(images, tmp_path))


@pytest.mark.parametrize('stage', ['finetune', 'mapper'])
def test_a_later_stage_has_the_data_of_the_stage_before(stage, images, tmp_path):
  train_on(images, tmp_path)

  def follow(images=images, **fields):
    return train_on(images, tmp_path, stage=stage, init_from='toy', **fields)

  line = refused(lambda: follow(data__direction='BtoA'))
  assert 'data.direction is BtoA, not AtoB' in line and '\n' not in line
  assert 'moved from train to val' in refused(lambda: follow(data__val_fraction=0.9))
  write_images(images, ['new.png'])
  line = refused(follow)
  assert '1 added to' in line and '\n' not in line and str(tmp_path / 'toy') in line
  (tmp_path / 'toy' / contents.FILE).unlink()
  assert 'has no record of its images' in refused(follow)
  elsewhere = tmp_path / 'elsewhere'
  write_images(elsewhere / 'train', ['a.png', 'b.png'])
  write_images(elsewhere / 'val', ['c.png'])
  assert f'data.path is {elsewhere}, not {images}' in refused(lambda: follow(elsewhere))
  assert follow(elsewhere, change_config=True).is_dir()


def test_translation_may_follow_pretraining_on_other_data(images, tmp_path):
  train_on(images, tmp_path)
  names = list(contents.read(tmp_path / 'toy')['val'])

  def follow(images, workdir, **fields):
    return train_on(images, workdir, stage='translate', init_from=str(tmp_path / 'toy'), **fields)

  # A data set of the same name with different images.
  other = tmp_path / 'other'
  write_images(other / 'train', names, 255)
  write_images(other / 'val', ['x.png'])
  assert follow(other, tmp_path / 'a').is_dir()
  write_images(images, ['new.png'])
  assert follow(images, tmp_path / 'b').is_dir()
  line = refused(lambda: follow(images, tmp_path / 'c', data__val_fraction=0.01))
  assert 'val images of that stage are train images now' in line and '\n' not in line
  (tmp_path / 'toy' / contents.FILE).unlink()
  assert 'has no record of its images' in refused(lambda: follow(images, tmp_path / 'd'))


def test_scores_on_training_images_are_announced(images, tmp_path, caplog):
  folder = train_on(images, tmp_path)
  dataset = data.open_data(str(images), val_fraction=0.3)
  assert contents.evaluation_warning(folder, dataset, 'val') == ''
  more = data.open_data(str(images), val_fraction=0.9)
  moved = more.splits['val'] - dataset.splits['val']
  expected = f'was trained on {moved} of the {more.splits["val"]} val images'
  assert expected in contents.evaluation_warning(folder, more, 'val')
  assert contents.evaluation_warning(folder, more, 'train') == ''
  settings = config_lib.read(folder).data
  settings.val_fraction = 0.9
  contents.open_held_out(folder, settings)
  assert expected in caplog.text
  (folder / contents.FILE).unlink()
  line = contents.evaluation_warning(folder, dataset, 'val')
  assert 'the rule that holds out validation images has changed' in line and '\n' not in line
