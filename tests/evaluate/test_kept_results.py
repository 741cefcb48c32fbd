"""Which earlier results an evaluation keeps, with fake measures."""

import json
import types

import ml_collections
import pytest

from step_jax.errors import RunError
from step_jax.evaluate import protocols, results
from step_jax.evaluate.scores import Score, Skipped


def score(name, value):
  group = {'psnr': 'reconstruction', 'probe': 'style', 'ndb': 'diversity', 'fid': 'realism'}[name]
  return Score(protocols.Protocol(name, group, 'higher', name, {}), value)


class Run:
  """A run of one stage, and the results of its measures: scores, skips, or an error."""

  def __init__(self, folder):
    self.folder = folder
    self.step, self.fingerprint = 1, 'f'
    self.found = {
      'reconstruction': [score('psnr', 1.0), Skipped('LPIPS', 'no weights')],
      'style': [score('probe', 2.0)],
      'diversity': [score('ndb', 3.0)],
      'realism': [score('fid', 4.0)],
    }
    self.measured = []

  def open(self, workdir, split, which, path, seed):
    return types.SimpleNamespace(
      folder=self.folder,
      config=ml_collections.ConfigDict({'stage': 'translate', 'data': {'path': 'photos'}}),
      run=types.SimpleNamespace(step=self.step, method='measured'),
      pair_set=types.SimpleNamespace(
        fingerprint=f'{self.fingerprint}{path}',
        split=lambda name: types.SimpleNamespace(names=lambda: [f'{name}.png']),
      ),
      features=types.SimpleNamespace(label='net'),
      split=split,
      seed=seed,
    )

  def measure(self, group):
    def measured(session):
      self.measured.append(group)
      for item in self.found[group]:
        if isinstance(item, Exception):
          raise item
        yield item

    return measured, frozenset({group})


@pytest.fixture
def run(tmp_path, monkeypatch):
  run = Run(tmp_path)
  monkeypatch.setattr(results.session_lib, 'open_run', run.open)
  # A method that defines no scores.
  method = results.methods.Method('measured', '', (), translating=(), run='')
  monkeypatch.setitem(results.methods.METHODS, 'measured', method)
  monkeypatch.setattr(results, '_MEASURES', tuple(map(run.measure, run.found)))
  return run


def values(found):
  return {name: score['value'] for name, score in found['scores'].items()}


ALL = {'psnr': 1.0, 'probe': 2.0, 'ndb': 3.0, 'fid': 4.0}


def test_groups_add_up(run, tmp_path):
  results.evaluate(tmp_path, groups=['reconstruction'])
  assert values(results.read(tmp_path)) == {'psnr': 1.0}
  found = results.evaluate(tmp_path, groups=['realism', 'diversity'])
  assert found == results.read(tmp_path)
  assert values(found) == {'psnr': 1.0, 'ndb': 3.0, 'fid': 4.0}
  assert found['groups'] == {'reconstruction': ['LPIPS'], 'diversity': [], 'realism': []}
  assert found['skipped'] == {'LPIPS': 'no weights'}
  # Evaluating a group again replaces its scores and its skipped entries.
  run.found['reconstruction'] = [score('psnr', 9.0)]
  found = results.evaluate(tmp_path, groups=['reconstruction'])
  assert values(found) == {'psnr': 9.0, 'ndb': 3.0, 'fid': 4.0}
  assert not found['skipped'] and not found['groups']['reconstruction']


def test_scores_measured_before_a_crash_are_kept(run, tmp_path):
  run.found['diversity'].append(MemoryError('no space'))
  with pytest.raises(MemoryError, match='no space'):
    results.evaluate(tmp_path)
  found = results.read(tmp_path)
  # One diversity score does not make the group complete.
  assert values(found) == {'psnr': 1.0, 'probe': 2.0, 'ndb': 3.0}
  assert list(found['groups']) == ['reconstruction', 'style']
  assert run.measured == ['reconstruction', 'style', 'diversity']
  run.found['diversity'].pop()
  assert values(results.evaluate(tmp_path, groups=['diversity', 'realism'])) == ALL
  assert set(results.read(tmp_path)['groups']) == set(run.found)


def test_each_group_is_written_once_it_is_measured(run, tmp_path, monkeypatch):
  def killed(session):
    before.append(values(results.read(tmp_path)))
    yield from ()

  before = []
  last = killed, frozenset({'diversity'})
  monkeypatch.setattr(results, '_MEASURES', (*results._MEASURES[:2], last))
  results.evaluate(tmp_path, groups=['reconstruction', 'style', 'diversity'])
  assert before == [{'psnr': 1.0, 'probe': 2.0}]


def test_a_crash_before_the_first_score_leaves_nothing(run, tmp_path):
  run.found['reconstruction'].insert(0, MemoryError())
  with pytest.raises(MemoryError):
    results.evaluate(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('options', 'name'),
  [
    ({'split': 'test'}, 'results-split=test.json'),
    ({'which': 'best'}, 'results-checkpoint=best.json'),
    ({'seed': 3}, 'results-seed=3.json'),
    ({'path': 'my photos/b/c'}, 'results-data=c-????????.json'),
    ({'path': 'gone/../phot os'}, 'results-data=phot_os-????????.json'),
    ({'path': 'n' * 250}, 'results-data=nnn*-????????.json'),
    (
      {'path': 'b', 'split': 'test', 'which': 'best', 'seed': 3},
      'results-data=b-????????-split=test-checkpoint=best-seed=3.json',
    ),
  ],
)
def test_others_have_files_of_their_own(run, tmp_path, options, name):
  main = results.evaluate(tmp_path)
  run.found['reconstruction'][0] = score('psnr', 7.0)
  other = results.evaluate(tmp_path, groups=['reconstruction'], **options)
  assert values(other) == {'psnr': 7.0}
  assert results.read(tmp_path) == results.find(tmp_path) == main
  (file,) = tmp_path.glob(name)
  assert results.find(file) == other
  assert len(list(tmp_path.iterdir())) == 2
  # Groups accumulate in this file too.
  assert set(values(results.evaluate(tmp_path, groups=['style'], **options))) == {'psnr', 'probe'}


def test_data_sets_with_the_same_name_are_distinguished(run, tmp_path):
  for path in ('a/photos', 'b/photos', 'photos', './photos', 'b/../photos'):
    results.evaluate(tmp_path, path=path, groups=['style'])
  files = sorted(path.name for path in tmp_path.iterdir())
  assert len(files) == 3 and files[-1] == 'results.json'
  assert all(name.startswith('results-data=photos-') for name in files[:2])


def test_results_of_only_another_split_are_found(run, tmp_path):
  found = results.evaluate(tmp_path, split='test')
  assert results.read(tmp_path) == results.find(tmp_path) == found
  main = results.evaluate(tmp_path)
  assert results.read(tmp_path) == main


@pytest.mark.parametrize('change', [{'step': 2}, {'fingerprint': 'g'}])
def test_scores_of_another_step_or_other_images_are_not_mixed_in(run, tmp_path, change):
  results.evaluate(tmp_path)
  vars(run).update(change)
  found = results.evaluate(tmp_path, groups=['style'])
  assert values(found) == {'probe': 2.0} and found['groups'] == {'style': []}
  assert results.read(tmp_path) == found


def test_scores_of_other_versions_are_reported(run, tmp_path):
  path = tmp_path / results.FILE
  now = results.evaluate(tmp_path)['versions']
  earlier = {**now, 'jax': '0.1'}
  path.write_text(json.dumps({**json.loads(path.read_text()), 'versions': earlier}))
  for group in ('style', 'realism'):
    found = results.evaluate(tmp_path, groups=[group])
  assert found['versions'] == now
  versions = {name: score.get('versions', now)['jax'] for name, score in found['scores'].items()}
  assert versions == {'psnr': '0.1', 'probe': now['jax'], 'ndb': '0.1', 'fid': now['jax']}


def test_two_simultaneous_evaluations_keep_both(run, tmp_path, monkeypatch):
  measure, groups = results._MEASURES[0]

  def slow(session):
    yield from measure(session)
    results.evaluate(tmp_path, groups=['style'])

  monkeypatch.setattr(results, '_MEASURES', ((slow, groups), *results._MEASURES[1:]))
  found = results.evaluate(tmp_path, groups=['reconstruction'])
  assert values(found) == {'psnr': 1.0, 'probe': 2.0} and found == results.read(tmp_path)


def test_damaged_results_are_reported_before_anything_is_measured(run, tmp_path):
  (tmp_path / results.FILE).write_text('{')
  with pytest.raises(RunError, match='results.json: is damaged'):
    results.evaluate(tmp_path)
  assert not run.measured


def test_results_without_groups_are_complete(run, tmp_path):
  path = tmp_path / results.FILE
  old = results.evaluate(tmp_path, groups=['style', 'reconstruction'])
  path.write_text(json.dumps({name: value for name, value in old.items() if name != 'groups'}))
  assert set(results.read(tmp_path)['groups']) == {'style', 'reconstruction'}
  assert set(values(results.evaluate(tmp_path, groups=['realism']))) == {'psnr', 'probe', 'fid'}
