"""Tables: their runs, and a table at the smallest size."""

import dataclasses
import json

import numpy as np
import pytest
import tiny

from step_jax import config as config_lib
from step_jax import reproduce
from step_jax.errors import ConfigError, RunError
from step_jax.evaluate import results
from step_jax.methods.step.reproduce.tables import TABLES
from step_jax.reproduce import jobs, page, run

OTHERS = {'related': reproduce.Source('r'), 'unrelated': reproduce.Source('u')}


def make_settings(folder='x', **fields):
  sources = {'target': reproduce.Source(str(folder)), **OTHERS}
  return reproduce.Settings(sources=sources, **fields)


@pytest.mark.parametrize('name', TABLES)
def test_shared_stages_of_rows_are_trained_once(name):
  settings = make_settings(seeds=2)
  planned = jobs.make(TABLES[name], settings, TABLES[name].rows)
  folders = [job.folder for job in planned]
  assert len(folders) == len(set(folders))
  encoders = {row.encoder for row in TABLES[name].rows} & set(settings.sources)
  pretrained = [job for job in planned if job.config.stage == 'pretrain']
  assert len(pretrained) == 2 * len(encoders)
  assert [job.takes_from for job in pretrained if job.config.seed == 0] == [''] * len(encoders)
  # A stage comes after the one that it starts from.
  for i, job in enumerate(planned):
    if job.config.get('init_from', ''):
      before = (job.folder.parent / job.config.init_from).as_posix()
      parts = []
      for part in before.split('/'):
        parts = parts[:-1] if part == '..' else [*parts, part]
      assert '/'.join(parts) in [folder.as_posix() for folder in folders[:i]]


@pytest.mark.parametrize('name', TABLES)
def test_all_rows_train_on_the_same_number_of_images(name):
  settings = make_settings(seeds=1, kimg=8.0)
  seen: dict[str, float] = {}
  for job in jobs.make(TABLES[name], settings, TABLES[name].rows):
    if job.config.stage in ('translate', 'finetune'):
      seen[job.run] = seen.get(job.run, 0) + job.config.schedule.total_kimg
  assert set(seen.values()) == {8.0}


def test_fields_are_set_where_a_stage_has_them():
  settings = make_settings(seeds=1, fields={'optimizer.generator_lr': '0.5'})
  for job in jobs.make(TABLES['ablation'], settings, TABLES['ablation'].rows):
    rates = job.config.optimizer
    assert rates.get('generator_lr', 0.5) == 0.5
  settings = make_settings(seeds=1, fields={'optimizer.no': '0.5'})
  with pytest.raises(ConfigError, match='optimizer.no'):
    jobs.make(TABLES['ablation'], settings, TABLES['ablation'].rows)


def test_some_rows_take_the_fields_of_the_whole_table():
  settings = make_settings(seeds=1, fields={'optimizer.encoder_lr': '0.5'})
  rows = [row for row in TABLES['ablation'].rows if row.preset == 'pix2pix']
  (job,) = jobs.make(TABLES['ablation'], settings, rows)
  assert 'encoder_lr' not in job.config.optimizer


def test_rows_without_their_pictures_are_left_out(caplog):
  table = TABLES['generalisation']
  settings = dataclasses.replace(
    make_settings(), sources={'target': reproduce.Source('x'), 'unrelated': reproduce.Source('u')}
  )
  rows = run.choose_rows(table, settings)
  assert {row.encoder for row in rows} == {'target', 'unrelated', 'none'}
  assert '--related' in caplog.text
  with pytest.raises(ConfigError, match="'nothing'"):
    run.choose_rows(table, settings, ['nothing'])
  with pytest.raises(ConfigError, match='no row is left'):
    run.choose_rows(table, settings, ['step_v3-related'])


def line(title, value, hash_='1'):
  score = {'hash': hash_, 'value': value, 'better': 'higher', 'title': 't'}
  return page.Line(title, [{'scores': {'psnr': score}}], [60.0], [])


def test_cells():
  assert page.cell([]) == page.cell([None]) == '–'
  assert page.cell([2.0]) == '2'
  assert page.cell([1.0, None, 3.0]) == '2 ± 1.4'
  assert page.body([line('a', 1.5)]) == [['', 'psnr ↑', 'minutes to train'], ['a', '1.5', '1']]


def test_one_column_holds_one_definition():
  with pytest.raises(RunError, match='b: psnr'):
    page.body([line('a', 1.0), line('b', 2.0, hash_='2')])


def line_of(title, *seeds):
  """A row from the values per image of each seed."""
  results = [
    {
      'scores': {
        'psnr': {
          'hash': '1',
          'better': 'higher',
          'value': float(np.nanmean(np.array(values, float))),
          'values': values,
        }
      }
    }
    for values in seeds
  ]
  return page.Line(title, results, [60.0] * len(seeds), [])


def test_differences_pair_seeds_and_images():
  rng = np.random.default_rng(0)
  # Seeds and images differ by far more than rows do.
  base = rng.normal(0, 5, (3, 1)) + rng.normal(0, 5, (3, 40))
  better = base + rng.normal(0.5, 0.1, base.shape)
  one, two = line_of('a', *base.tolist()), line_of('b', *better.tolist())
  found = page.differences(two, one)['psnr']
  np.testing.assert_allclose(found.seeds, (better - base).mean(axis=1))
  # Independent: t interval of three values by hand (t of 2 degrees of freedom: 4.3027).
  half = 4.302653 * np.std(found.seeds, ddof=1) / np.sqrt(3)
  np.testing.assert_allclose(found.over_seeds, [found.mean - half, found.mean + half], rtol=1e-6)
  assert found.is_clear and found.over_images[0] > 0.4
  cell = page.steps([one, two])[1]
  assert cell == ['b − a', f'{found.mean:+.3g} ± {half:.2g} *']
  # The other way round it is the negative; a row does not differ from itself.
  assert page.differences(one, two)['psnr'].mean == pytest.approx(-found.mean)
  assert not page.differences(one, one)['psnr'].is_clear


def test_differences_that_only_some_seeds_have_are_not_clear():
  base = [[0.0] * 20] * 3
  found = page.differences(line_of('b', [1.0] * 20, [-1.0] * 20, [1.0] * 20), line_of('a', *base))
  assert found['psnr'].over_images[0] > 0 and not found['psnr'].is_clear


def test_differences_need_the_same_images():
  one, other = line_of('a', [1.0, 2.0]), line_of('b', [2.0, 3.0])
  one.results[0]['pictures'], other.results[0]['pictures'] = ['x', 'y'], ['x', 'z']
  with pytest.raises(RunError, match='different images'):
    page.differences(one, other)


def test_differences_of_one_seed_or_without_images():
  rng = np.random.default_rng(0)
  values = rng.normal(1, 0.1, (2, 30))
  one = line_of('a', [0.0] * 30), line_of('b', values[0].tolist())
  found = page.differences(*one[::-1])['psnr']
  assert np.isnan(found.over_seeds).all() and found.is_clear
  assert ' ± 0.0' in page.steps(one)[1][1]
  missing = line_of('b', [None, *values[0, 1:].tolist()])
  found = page.differences(missing, one[0])['psnr']
  assert found.mean == pytest.approx(values[0, 1:].mean())
  assert not np.isnan(found.over_images[0])
  assert page.differences(line('a', 1.0), line('b', 3.0))['psnr'].is_clear is False
  assert page.steps([line('a', 1.0), line('b', 3.5)])[1] == ['b − a', '+2.5']
  assert page.differences(line('a', None), line('b', 3.0)) == {}


def test_only_results_of_the_table_are_taken(tmp_path, monkeypatch):
  """`step-jax evaluate` may have scored a run on other images or groups since."""
  config = config_lib.load(config_lib.stage_file('translate'))
  config.data.path = 'p'
  config_lib.save(config, tmp_path)
  of_table = {
    'format': results.FORMAT,
    'stage': 'translate',
    'features': 'squeezenet1_1@0',
    'step': 7,
    'checkpoint': 'latest',
    'seed': 0,
    'data': {'split': 'val', 'path': 'p'},
    'groups': {'reconstruction': [], 'style': ['style']},
    'skipped': {'style': 'no styles'},
    'pictures': [],
    'scores': {
      'psnr/uint8': {
        'group': 'reconstruction',
        'title': 'psnr',
        'better': 'higher',
        'hash': '1',
        'definition': {},
        'value': 1.0,
        'interval': None,
      }
    },
  }
  monkeypatch.setattr(results, 'evaluate', lambda folder, groups: 'measured again')
  groups = ('reconstruction', 'style')

  def score(**changes):
    (tmp_path / results.FILE).write_text(json.dumps({**of_table, **changes}))
    return run._score(tmp_path, 7, groups)

  assert score() == of_table
  for changes in (
    {'step': 6},
    {'checkpoint': 'best'},
    {'seed': 1},
    {'data': {'split': 'train', 'path': 'p'}},
    {'data': {'split': 'val', 'path': 'q'}},
    {'groups': {'reconstruction': []}},
  ):
    assert score(**changes) == 'measured again', changes
  # Before groups were recorded, a group was complete if it had a score or was skipped.
  noted = of_table.pop('groups')
  assert score()['groups'].keys() == noted.keys()
  assert score(skipped={}) == 'measured again'


def test_a_table_from_images_to_page(picture_folder, tmp_path):
  fields = {'model.z_dim': '8'} | {
    field: text if isinstance(text, str) else str(text)
    for field, text in tiny.FIELDS.items()
    if not field.startswith('schedule.')
  }
  settings = dataclasses.replace(
    make_settings(picture_folder, size=0, features='squeezenet1_1', weights='random'),
    kimg=0.024,
    pretrain_kimg=0.012,
    seeds=2,
    fields=fields,
  )
  rows = ['step_v3-target']
  told = reproduce.plan('generalisation', settings, tmp_path, rows)
  assert 'encoder-target/seed1/pretrain' in told and 'about' in told
  assert not list(tmp_path.iterdir())
  made = reproduce.reproduce('generalisation', settings, tmp_path, rows)
  text = (tmp_path / 'table.md').read_text()
  assert text.count('\n| ') == 7 and ' ± ' in text and 'psnr/uint8 ↑' in text
  assert made.name == 'table.html' and 'data:image/webp' in made.read_text()
  mined = [tmp_path / f'encoder-target/seed{i}/pretrain/neighbors_train.npz' for i in range(2)]
  assert mined[0].read_bytes() == mined[1].read_bytes()
  seeds = [config_lib.read(tmp_path / f'step_v3-target/seed{i}/finetune').seed for i in range(2)]
  assert seeds == [0, 1]
  record = json.loads((tmp_path / 'table.json').read_text())
  frozen, tuned = record['rows']
  for i, seed in enumerate(tuned['seeds']):
    found = json.loads((tmp_path / f'step_v3-target/seed{i}/finetune/results.json').read_text())
    assert seed['scores']['psnr/uint8']['value'] == found['scores']['psnr/uint8']['value']
  (pair,) = record['differences']
  assert (pair['row'], pair['minus']) == (tuned['row'], frozen['row'])
  assert len(pair['scores']['psnr-lead/uint8']['seeds']) == 2
  # Running it again trains and scores nothing, and gives the same table.
  checkpoints = sorted(tmp_path.rglob('results.json'))
  times = [path.stat().st_mtime_ns for path in checkpoints]
  assert reproduce.reproduce('generalisation', settings, tmp_path, rows) == made
  assert (tmp_path / 'table.md').read_text() == text
  assert [path.stat().st_mtime_ns for path in checkpoints] == times
