"""Hostile and damaged work directories: all files that commands read there."""

import html.parser
import json
import os
import shutil

from measure import MIB, peak, refused
import numpy as np
import pytest

from step_jax import cli, files, methods, report, untrusted
from step_jax import config as config_lib
from step_jax.errors import ConfigError, RunError
from step_jax.evaluate import compare, results
from step_jax.methods.step import fitted
from step_jax.methods.step.mining import table
from step_jax.methods.step.search import neighbors
from step_jax.train import lock, writers

NOT_JSON = {
  'nothing': '',
  'cut short': '{"a": [1, 2',
  'a list': '[]',
  'a text': '"x"',
  'null': 'null',
  'no UTF-8': b'\xff\xfe\x00',
  'zeros': bytes(100),
  'deep lists': '[' * 100_000,
  'deep objects': '{"a":' * 100_000,
  'a number of many digits': '{"a": ' + '9' * 10_000 + '}',
}


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def good_results(**fields) -> dict:
  score = dict(hash='1', group='reconstruction', title='PSNR', better='higher', value=1.0)
  score |= dict(interval=[0.5, 1.5], definition={'data': 'x'}, values=[1.0])
  return {
    **dict(format=results.FORMAT, stage='translate', step=1, checkpoint='latest', seed=0),
    'data': {'path': 'p', 'split': 'val', 'fingerprint': 'f'},
    **dict(features='random', versions={}, groups={}, skipped={}, pictures=['a']),
    'scores': {'psnr': score},
    **fields,
  }


def broken_results():
  """Results with one field missing or invalid."""
  whole = good_results()
  for field in set(whole) - {'format', 'checkpoint', 'versions'}:
    for value in (None, 'x', 1, [], {}, [[]], {'x': 'y'}, {'x': {}}):
      if type(value) is not type(whole[field]) or field in ('scores', 'data'):
        yield f'{field} {value}', {**whole, field: value}
  score = whole['scores']['psnr']
  for field in set(score) - {'values'}:
    for value in ({}, [1], ['a', 'b'], True, '\x1b[2J', [1, 2, 3]):
      if field != 'definition' or value != {}:
        yield f'{field} {value}', {**whole, 'scores': {'psnr': {**score, field: value}}}


def test_whole_results_are_read(apart):
  write(apart / results.FILE, json.dumps(good_results()))
  assert results.read(apart) == good_results()


@pytest.mark.parametrize('content', NOT_JSON)
def test_invalid_results_are_named(content, apart):
  write(apart / results.FILE, NOT_JSON[content])
  for action in (lambda: results.find(apart), lambda: compare.compare([apart])):
    message = refused(action, RunError)
    assert f'{apart}/results.json: is damaged' in message and 'evaluate again' in message


def test_results_with_a_wrong_field_are_named(apart):
  count = 0
  for what, found in broken_results():
    if found['scores'] == {}:
      continue
    count += 1
    write(apart / results.FILE, json.dumps(found))
    try:
      read = results.read(apart)
      results.table(read)
      compare.compare([apart])
    except RunError as error:
      assert 'results.json: is damaged' in str(error) and str(error).isprintable(), what
  assert count > 80


@pytest.mark.parametrize('content', NOT_JSON)
def test_an_invalid_configuration_is_named(content, apart):
  write(apart / config_lib.FILE, NOT_JSON[content])
  message = refused(lambda: config_lib.read(apart), RunError)
  assert f'{apart}/config.json: is damaged' in message


def test_fields_of_another_type_are_named(apart):
  config = config_lib.load(config_lib.stage_file('translate') + ':facades')
  config_lib.save(config, apart)
  whole = json.loads((apart / config_lib.FILE).read_text())
  evil = "__import__('os').abort()"
  for group, field, value in (
    ('model', 'generator_width', evil),
    ('model', 'generator_width', {'a': 1}),
    ('model', None, None),
    ('model', None, 'x'),
    ('data', 'crop', 'x'),
    ('data', 'path', ['x']),
    ('stage', None, 7),
    ('features', 'taps', {}),
  ):
    changed = json.loads(json.dumps(whole))
    if field:
      changed[group][field] = value
    else:
      changed[group] = value
    write(apart / config_lib.FILE, json.dumps(changed))
    refused(lambda: config_lib.read(apart), RunError)
  write(apart / config_lib.FILE, json.dumps(whole))
  assert config_lib.flatten(config_lib.read(apart)) == config_lib.flatten(config)


CODE = (
  "__import__('os').system('touch ran')",
  "[].__class__.__base__.__subclasses__()",
  "eval('1')",
  '(lambda: 0)()',
  '9**9**9',
  '(' * 1000,
  '-' * 5000 + '1',
  '1' * 5000,
  'f"{1}"',
  '\0',
)  # fmt: skip


@pytest.mark.parametrize('code', CODE)
def test_settings_that_are_code_are_not_run(code, apart, monkeypatch):
  monkeypatch.chdir(apart)
  for field in ('batch_size', 'schedule.total_kimg', 'data.flip', 'data.crop', 'features.taps'):
    config = config_lib.load(config_lib.stage_file('translate') + ':facades')
    before = dict(config_lib.flatten(config))
    message = refused(lambda c=config, f=field: config_lib.set_field(c, f, code), ConfigError)
    assert field in message
    assert dict(config_lib.flatten(config)) == before
  config_lib.set_field(config, 'data.path', code)  # Strings are not evaluated.
  assert config.data.path == code
  for argument in (code, f'facades,size={code}', f'facades,preset={code}', f'{code}=1'):
    refused(lambda a=argument: config_lib.load(f'{config_lib.stage_file("translate")}:{a}'))
  refused(lambda: config_lib.set_field(config, code, '1'), ConfigError)
  assert not list(apart.iterdir())


def test_the_command_line_reports_code_in_one_line(apart, capfd, monkeypatch):
  monkeypatch.chdir(apart)
  code = CODE[0]
  assert cli.main(['train', 'translate', '--data', 'x', '--workdir', 'w',
                   f'--config.batch_size={code}']) == 2  # fmt: skip
  lines = capfd.readouterr().err.splitlines()
  assert len(lines) == 1 and lines[0].startswith('step-jax: config field batch_size=')
  assert not list(apart.iterdir())


ARRAYS = {
  'nothing': b'',
  'no array': b'hello',
  'zeros': bytes(1000),
  'cut short': None,
  'one that is longer than its file': None,
}


def array_file(path, kind):
  """Replaces a file of arrays by a damaged one."""
  if ARRAYS[kind] is not None:
    path.write_bytes(ARRAYS[kind])
  elif kind == 'cut short':
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
  elif path.suffix == '.npy':
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'(30, 4), }  ', b'(1099511627776, 4), }')[: len(whole)])
  else:
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + whole[300:])
  return path


@pytest.mark.parametrize('kind', ARRAYS)
def test_damaged_codes_are_named(kind, apart):
  path = apart / 'codes.npy'
  np.save(path, np.ones((30, 4), np.float32))
  assert fitted.read_codes(apart, 4).shape == (30, 4)
  array_file(path, kind)
  assert 'training command' in refused(lambda: fitted.read_codes(apart, 4), RunError)


def test_invalid_codes_are_named(apart):
  path = apart / 'codes.npy'
  refused(lambda: fitted.read_codes(apart, 4), RunError)
  for array in (
    np.ones((30, 5), np.float32),
    np.ones(4, np.float32),
    np.full((30, 4), np.nan, np.float32),
    np.ones((30, 4), 'S9'),
    np.array([[os.system]], object),
  ):
    if array.dtype == object:
      path.write_bytes(b'\x93NUMPY')
    else:
      np.save(path, array)
    refused(lambda: fitted.read_codes(apart, 4), RunError)


@pytest.mark.parametrize('kind', ARRAYS)
def test_a_damaged_table_of_neighbours_is_named(kind, apart):
  path = apart / 'neighbors_train.npz'
  vectors = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
  table.load_or_mine(path, 'key', lambda scratch: neighbors.find_neighbors(vectors, 2, 3))
  array_file(path, kind)
  message = refused(lambda: table.load_or_mine(path, 'key', None), RunError)
  assert 'neighbors_train.npz: is damaged' in message and 'mine again' in message


def test_invalid_neighbours_are_named(apart):
  path = apart / 'neighbors_train.npz'
  good = np.zeros((3, 2), np.int32)
  for tables in (
    dict(nearest=good),
    dict(nearest=good, farthest=good, more=good),
    dict(nearest=good, farthest=good[:2]),
    dict(nearest=good, farthest=good + 3),
    dict(nearest=good - 1, farthest=good),
    dict(nearest=good, farthest=good.astype(np.float32)),
    dict(nearest=good[:, :0], farthest=good),
    dict(nearest=good[0], farthest=good),
  ):
    np.savez(path, key='key', **tables)
    refused(lambda: table.load_or_mine(path, 'key', None), RunError)


def test_pickles_in_arrays_are_refused(apart):
  class Touch:
    def __reduce__(self):
      return os.system, (f'touch {apart}/ran',)

  path = apart / 'neighbors_train.npz'
  np.savez(path, key=np.array(Touch(), object), nearest=np.zeros((3, 2), np.int32))
  refused(lambda: table.load_or_mine(path, 'key', None), RunError)
  np.save(apart / 'codes.npy', np.array([Touch()], object))
  refused(lambda: fitted.read_codes(apart, 1), RunError)
  assert not (apart / 'ran').exists()


def test_archives_of_arrays_that_inflate_are_refused(apart):
  path = apart / 'neighbors_train.npz'
  np.savez_compressed(path, key='key', nearest=np.zeros(16 * MIB, np.int32))
  assert path.stat().st_size < MIB
  found = []
  action = lambda: refused(lambda: table.load_or_mine(path, 'key', None), RunError)
  assert peak(lambda: found.append(action())) < 16 * MIB
  assert 'too large when decompressed' in found[0]


@pytest.mark.parametrize('kind', ARRAYS)
def test_a_damaged_search_in_progress_is_named(kind, apart):
  vectors = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
  path = apart / 'search.npz'
  lists = {
    name: np.zeros((30, 10)) for name in ('near_lowest', 'near_index', 'far_lowest', 'far_index')
  }
  np.savez(path, first=1, **lists)
  array_file(path, kind)
  action = lambda: neighbors.find_neighbors(vectors, 2, 3, block=16, progress=path)
  assert 'start over' in refused(action, RunError)


def test_damaged_vectors_in_progress_are_named(apart):
  path = apart / 'vectors.npy'
  np.save(path, np.zeros((30, 4), np.float32))
  assert untrusted.npy_type(path, '') == ((30, 4), np.float32)
  array_file(path, 'cut short')
  refused(lambda: untrusted.npy_type(path, ''), RunError)


ROWS = [{'step': 1, 'loss': 2.0}, {'step': 2, 'loss': 1.0}]
BAD_ROWS = ('[1]', '3', 'null', '{}', '{"step": "x"}', '{"step": null}', '{"step": 1.5}',
            '{"step": 3, "loss": {}}', '{"step": 3, "loss": null}', '[' * 100_000,
            '{"step": 3, "loss": ' + '9' * 400 + '}')  # fmt: skip


@pytest.mark.parametrize('bad', BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_metrics_end_before_a_damaged_row(bad, apart):
  lines = [*map(json.dumps, ROWS), bad, json.dumps({'step': 4, 'loss': 0.5})]
  (apart / writers.METRICS_FILE).write_text('\n'.join(lines))
  assert writers.read_metrics(apart) == ROWS


class Tags(html.parser.HTMLParser):
  """All tags of a page, and attributes that could run or load something."""

  def __init__(self):
    super().__init__()
    self.tags, self.suspicious = set(), []

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    for name, value in attrs:
      if name.startswith('on') or 'script:' in (value or ''):
        self.suspicious.append((tag, name, value))
      if name in ('src', 'href') and not (value or '').startswith(('#', 'data:image/')):
        self.suspicious.append((tag, name, value))


EVIL = '"\'><script>alert(1)</script><img src=x onerror=alert(1)>'


def test_no_text_of_a_run_becomes_part_of_its_page(apart):
  folder = apart / 'translate'
  folder.mkdir()
  config = config_lib.load(config_lib.stage_file('translate') + ':facades')
  config.data.path = config.features.weights = EVIL
  config_lib.save(config, folder)
  name = f'$\\bad{{ {EVIL}'
  (folder / writers.METRICS_FILE).write_text(json.dumps({'step': 1, name: 2.0, f'a/{EVIL}': 1.0}))
  found = good_results(features=EVIL, skipped={EVIL: EVIL}, stage=EVIL)
  found['data'] = {'path': EVIL, 'split': EVIL, 'fingerprint': EVIL}
  score = {**found['scores']['psnr'], 'title': EVIL, 'hash': EVIL}
  found['scores'] = {EVIL: score}
  write(folder / results.FILE, json.dumps(found))
  page = report.write(apart).read_text()
  tags = Tags()
  tags.feed(page)
  assert 'alert(1)' in page and 'table' in tags.tags and 'svg' in tags.tags
  assert 'script' not in tags.tags and 'img' not in tags.tags
  assert [found for found in tags.suspicious if found[0] != 'use'] == []


def test_a_stage_does_not_write_through_links(apart):
  outside = apart / 'outside'
  outside.mkdir()
  (outside / 'kept.txt').write_text('kept')
  folder = apart / 'run' / 'translate'
  for name in ('train.log', '.lock', 'checkpoints', 'samples', '.neighbors_train-0/vectors.npy'):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(outside / ('kept.txt' if '.' in name else ''))
    config = config_lib.load(config_lib.stage_file('translate') + ':swatches')
    message = refused(lambda c=config: methods.train(c, apart / 'run'), RunError)
    assert f'{folder}/{name}: is a link to a file outside of the folder' in message
    shutil.rmtree(folder)
  folder.mkdir(parents=True)
  (folder / 'real').mkdir()
  (folder / 'inside').symlink_to(folder / 'real')
  untrusted.check_links(folder)
  assert (outside / 'kept.txt').read_text() == 'kept'
  assert [path.name for path in outside.iterdir()] == ['kept.txt']


def test_atomic_writes_do_not_follow_links(apart):
  kept = apart / 'kept.txt'
  kept.write_text('kept')
  for part in ('.config.json.part', '.metrics.jsonl.part', '.report.html.part', '.codes.npy.part'):
    (apart / part).symlink_to(kept)
  config = config_lib.load(config_lib.stage_file('translate') + ':swatches')
  config_lib.save(config, apart)
  writers.MetricWriter(apart).close()
  files.write_array(apart / 'codes.npy', np.zeros(3))
  (apart / 'translate').mkdir()
  config_lib.save(config, apart / 'translate')
  report.write(apart)
  assert kept.read_text() == 'kept'


def test_the_holder_of_a_lock_is_reported_in_one_line(apart):
  import fcntl

  path = apart / '.lock'
  path.write_bytes(b'process 1\n\x1b[2J\xff' + b'x' * 10_000)
  with path.open() as holder:
    fcntl.flock(holder, fcntl.LOCK_EX)
    message = refused(lambda: lock._lock(path), RunError)
  assert 'process 1' in message and len(message) < 1000


def test_a_run_of_another_kind_is_named(apart):
  """`config.json` of a mapper instead of a generator."""
  config = config_lib.load(config_lib.stage_file('mapper') + ':swatches')
  folder = apart / 'translate'
  (folder / 'checkpoints/1').mkdir(parents=True)
  config_lib.save(config, folder)
  assert 'trained as' in refused(lambda: methods.load(apart), RunError)
