"""An unreadable record is named, and stops training or is skipped, as configured."""

import itertools
import shutil

import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax import data
from step_jax.data import pipeline
from step_jax.errors import ConfigError, DataError


@pytest.fixture(scope='module')
def prepared(picture_folder, tmp_path_factory):
  from step_jax.data import builder, folders

  return builder.prepare(
    folders.scan(picture_folder), tmp_path_factory.mktemp('set') / 'set'
  ).folder


def records(folder):
  return next(folder.glob('*train.array_record*'))


def fails(split, index):
  try:
    split[index]
  except DataError:
    return True
  return False


@pytest.fixture(scope='module')
def spoilt(prepared, tmp_path_factory):
  """The data set with some bytes of one record set to zero, and the number of the record."""
  folder = tmp_path_factory.mktemp('spoilt') / 'set'
  shutil.copytree(prepared, folder)
  whole = records(prepared).read_bytes()
  for place in range(5000, len(whole), 500):
    records(folder).write_bytes(whole[:place] + bytes(20) + whole[place + 20 :])
    split = open_split(folder, 'stop')
    found = [index for index in range(len(split)) if fails(split, index)]
    if len(found) == 1 and found[0] < len(split) - 1:
      return folder, found[0]
  raise AssertionError('no single record could be damaged')


@pytest.fixture
def damaged(spoilt):
  return spoilt[0]


@pytest.fixture
def number(spoilt):
  return spoilt[1]


def open_split(folder, unreadable):
  return data.PairSet(folder, unreadable).split('train')


def batches(split, start, shard=None):
  def load(index, rng):
    example = split[int(index)]
    return {'A': example['A'], 'draw': rng.integers(1000)}

  shard = shard or pipeline.Shard()
  return pipeline.train_batches(np.arange(len(split)), load, 4, 0, start, shard)


def test_it_stops_training_with_a_line_that_names_it(damaged, number):
  split = data.PairSet(damaged).split('train')
  with pytest.raises(DataError, match=f'set, train: record {number} cannot be read') as error:
    # One epoch has six batches.
    list(itertools.islice(batches(split, 0), 6))
  assert '\n' not in str(error.value) and 'data.unreadable=skip' in str(error.value)
  assert split[number - 1]['name'] == f'train/{number - 1:02d}.png'
  with pytest.raises(DataError, match=f'record {number} '):
    split.names()


def test_a_skipped_record_is_replaced_by_the_next_one(damaged, number, caplog):
  split = open_split(damaged, 'skip')
  for _ in range(2):
    np.testing.assert_array_equal(split[number]['A'], split[number + 1]['A'])
  assert len(split) == len(split.names()) == 24
  assert len(caplog.messages) == 1
  assert f'record {number} ' in caplog.text and 'unreadable so far: 1 of 24' in caplog.text


def test_batches_are_a_function_of_the_step(damaged):
  """For any earlier reads and any number of hosts."""
  whole = list(itertools.islice(batches(open_split(damaged, 'skip'), 0), 12))
  for start in (5, 11):
    found = next(batches(open_split(damaged, 'skip'), start))
    for name, value in found.items():
      np.testing.assert_array_equal(value, whole[start][name])
  halves = [
    next(batches(open_split(damaged, 'skip'), 5, pipeline.Shard(index, 2))) for index in range(2)
  ]
  np.testing.assert_array_equal(np.concatenate([half['A'] for half in halves]), whole[5]['A'])


def test_other_records_are_not_affected(damaged, prepared):
  """Views are the same as those of the intact data set."""
  for found, expected in zip(
    (next(batches(open_split(damaged, 'skip'), step)) for step in range(6)),
    (next(batches(open_split(prepared, 'stop'), step)) for step in range(6)),
    strict=True,
  ):
    np.testing.assert_array_equal(found['draw'], expected['draw'])
    differing = [not np.array_equal(*pair) for pair in zip(found['A'], expected['A'], strict=True)]
    assert sum(differing) <= 1


def test_a_damaged_picture_in_a_whole_record_is_named(prepared, monkeypatch):
  from step_jax.data import pairs

  decode = pairs._decode
  split = open_split(prepared, 'stop')
  bad = split._source[3]['A']
  monkeypatch.setattr(pairs, '_decode', lambda png: decode(png[:60] if png == bad else png))
  with pytest.raises(DataError, match=r'record 3 \(train/03.png\) cannot be read'):
    split[3]


@pytest.mark.parametrize('unreadable', ['stop', 'skip'])
def test_a_truncated_file_ends_in_one_line(prepared, unreadable, tmp_path):
  folder = tmp_path / 'set'
  shutil.copytree(prepared, folder)
  content = records(folder).read_bytes()
  records(folder).write_bytes(content[: len(content) // 2])
  with pytest.raises(DataError, match='prepare') as error:
    open_split(folder, unreadable)[0]
  assert '\n' not in str(error.value)


def test_an_index_past_the_end_is_not_reported_as_damage(prepared):
  split = open_split(prepared, 'skip')
  with pytest.raises(IndexError):
    split[24]
  assert len(list(split)) == 24


def test_the_field_is_checked():
  config = config_lib.load(f'{config_lib.stage_file("translate")}:swatches')
  config.data.unreadable = 'ignore'
  with pytest.raises(ConfigError, match='stop or skip'):
    config_lib.validate(config)


def test_two_processes_may_prepare_one_set(picture_folder, tmp_path, monkeypatch):
  """The second process finds the data set of the first one at its destination."""
  from step_jax.data import builder, folders

  found = folders.scan(picture_folder)
  prepare = builder.Pairs.download_and_prepare

  def late(self, *args, **kwargs):
    prepare(self, *args, **kwargs)
    monkeypatch.undo()
    builder.prepare(found, tmp_path / 'set')

  monkeypatch.setattr(builder.Pairs, 'download_and_prepare', late)
  assert builder.prepare(found, tmp_path / 'set').splits == {'train': 24, 'val': 5}
  assert [path.name for path in tmp_path.iterdir()] == ['set']
