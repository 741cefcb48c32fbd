"""Exports opened as runs: the same outputs, nothing written, one-line errors for damaged ones."""

import copy as copies
import hashlib
import json
import os
import pathlib
import runpy
import shutil
import sys

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
import safetensors.numpy

import step_jax
from step_jax import cli, methods
from step_jax.errors import ConfigError, DataError, RunError, UserError
from step_jax.evaluate import session
from step_jax.export import artefact
from step_jax.methods.step import programs

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'hostile'))
import mutations

ROOT = pathlib.Path(__file__).parents[2]
CASES = 200
READING = {
  'translate': ['{image}', '--style', '{image}'],
  'codes': ['{image}'],
  'evaluate': ['--groups', 'diversity', '--data', '{data}'],
  'report': [],
  'export': [],
}
ODD = (None, True, -1, 10**30, 0.5, '', '../x', 'x' * 5000, '\x1b[2J', [], [[]], {}, {'': 0})


@pytest.fixture(scope='module')
def run(trained_run):
  """Exports the mapper, even where so short a training lets the Gaussian win."""
  run = step_jax.load(trained_run[0])
  run.sampler_name, run.note = 'mapper', ''
  return run


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
  bundle = programs.bundle(run, platforms=('cpu',))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(artefact, '_bundle', lambda run: bundle)
    return artefact.write(run, tmp_path_factory.mktemp('exports') / 'mine')


@pytest.fixture
def copy(exported, tmp_path):
  return shutil.copytree(exported, tmp_path / 'copy')


def listing(folder):
  return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def test_the_same_outputs(run, exported):
  opened = step_jax.load(exported)
  image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
  np.testing.assert_array_equal(opened.encode(image), run.encode(image))
  for sampler in ('mapper', 'gaussian', ''):
    np.testing.assert_array_equal(opened.draw(3, 1, sampler), run.draw(3, 1, sampler))
  np.testing.assert_array_equal(opened.sample(image, 2), run.sample(image, 2))
  np.testing.assert_array_equal(
    opened.translate(image, style=image), run.translate(image, style=image)
  )
  assert (opened.step, opened.code_digest) == (run.step, run.code_digest)


def test_verbs_read_it_and_write_elsewhere(trained_run, exported, picture_folder, tmp_path):
  before = listing(exported)
  image = picture_folder / 'val' / '00.png'
  for workdir, out in ((trained_run[0], 'a'), (exported, 'b')):
    words = ['translate', image, '--workdir', workdir, '--style', image, '--out', tmp_path / out]
    assert cli.main([*map(str, words), '--side-by-side']) == 0
  a, b = ((tmp_path / out / '00.png').read_bytes() for out in 'ab')
  assert a == b
  given = ['--workdir', str(exported)]
  out = ['--out', str(tmp_path / 'out')]
  data = ['--data', str(picture_folder), '--groups', 'diversity']
  assert cli.main(['codes', str(image), *given, *out, '--side-by-side']) == 0
  assert cli.main(['evaluate', *given, *out, *data]) == 0
  assert cli.main(['report', *given, *out]) == 0
  page = (tmp_path / 'out' / 'report.html').read_text()
  assert 'diversity' in page and '(0 steps)' not in page
  assert listing(exported) == before


def test_the_data_set_is_found_by_its_name(exported, picture_folder, tmp_path, monkeypatch, capsys):
  words = ['evaluate', '--workdir', exported, '--out', tmp_path, '--groups', 'diversity']
  words = [*map(str, words)]
  monkeypatch.chdir(picture_folder.parent)
  assert cli.main(words) == 0
  monkeypatch.chdir(tmp_path)
  assert cli.main(words) == 2
  (line,) = [line for line in capsys.readouterr().err.splitlines() if 'step-jax: ' in line]
  name = picture_folder.name
  assert f'was trained on {name}, and there is no folder {name}: give the images' in line


@pytest.mark.parametrize('name', ['', '.', '..', '../images', '/images', 'a/b', 'gs://images'])
def test_the_name_of_a_data_set_cannot_leave_its_folder(tmp_path, monkeypatch, name):
  monkeypatch.setattr(session.files, 'path', lambda place: tmp_path)  # Everything exists.
  with pytest.raises(DataError, match='give the images with --data'):
    session._data_of_export(tmp_path, name)
  assert session._data_of_export(tmp_path, 'images') == 'images'


@pytest.mark.parametrize(
  'words', [['evaluate', '--data', '{data}'], ['report'], ['export'], ['train', 'translate']]
)
def test_it_is_read_only(exported, picture_folder, capsys, words):
  before = listing(exported)
  words = [word.format(data=picture_folder) for word in words]
  more = ['--data', str(picture_folder)] if words[0] == 'train' else []
  assert cli.main([*words, *more, '--workdir', str(exported)]) == 2
  (line,) = [line for line in capsys.readouterr().err.splitlines() if 'step-jax: ' in line]
  assert 'is an export, which is read-only: ' in line
  assert listing(exported) == before


def test_there_is_no_best_checkpoint(exported):
  with pytest.raises(ConfigError, match='holds one checkpoint'):
    step_jax.load(exported, 'best')


def edit(folder, change):
  path = folder / 'manifest.json'
  manifest = json.loads(path.read_text())
  change(manifest)
  path.write_text(json.dumps(manifest))


def test_without_a_mapper_no_other_sampler_draws_in_its_name(run, copy):
  path = copy / 'params.safetensors'
  arrays = safetensors.numpy.load_file(path)
  kept = {name: array for name, array in arrays.items() if not name.startswith('mapper/')}
  assert len(kept) < len(arrays)
  path.write_bytes(data := safetensors.numpy.save(kept))
  digest = {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
  edit(copy, lambda manifest: manifest['files'].update({path.name: digest}))
  opened = step_jax.load(copy)
  assert opened.sampler_name == 'gaussian'
  np.testing.assert_array_equal(opened.draw(3, 1), run.draw(3, 1, 'gaussian'))
  with pytest.raises(RunError, match="cannot draw styles by 'mapper': styles are drawn"):
    opened.draw(3, 1, 'mapper')


def test_a_shipped_run_is_the_export_in_float16(run, exported, tmp_path, monkeypatch):
  monkeypatch.setattr(methods.names, 'SHIPPED', tmp_path)
  ship = runpy.run_path(str(ROOT / 'launch/ship_run.py'))['ship']
  folder = ship(exported, 'tiny')
  assert {path.name for path in folder.iterdir()} == set(methods.names.FILES)
  assert methods.shipped() == ['shipped:tiny']
  opened = step_jax.load('shipped:tiny')
  image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
  outputs = [each.translate(image, style=image).astype(int) for each in (opened, run)]
  # Norms over a few pixels enlarge the rounding of some parameters.
  assert np.mean(np.abs(outputs[0] - outputs[1]) <= 2) > 0.99
  stored = safetensors.numpy.load_file(folder / 'params.safetensors')
  assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
  leaves = jax.tree.leaves(opened.params)
  assert all(leaf.dtype == np.float32 for leaf in leaves)


@pytest.mark.parametrize(
  'change',
  [
    lambda manifest: manifest.pop('config'),
    lambda manifest: manifest.update(format='step_jax.export/9'),
    lambda manifest: manifest.update(step='7'),
    lambda manifest: manifest['config'].update({'model.generator_width': 8}),
    lambda manifest: manifest['config'].update({'model.z_dim': 'x'}),
    lambda manifest: manifest['config'].update({'stage.more': 1}),
    lambda manifest: manifest['files'].clear(),
  ],
)
def test_a_manifest_that_does_not_fit(copy, change):
  edit(copy, change)
  with pytest.raises(RunError, match='(?s)is damaged .*: download it again') as error:
    step_jax.load(copy)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('cut', [0, 7, 1000, -1])
def test_truncated_parameters(copy, cut):
  path = copy / 'params.safetensors'
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(RunError, match='SHA-256'):
    step_jax.load(copy)


@pytest.mark.parametrize(
  'change',
  [
    lambda arrays: b'\x80\x04cos\nsystem\n(S"true"\ntR.',
    lambda arrays: {name: arrays[name] for name in sorted(arrays)[1:]},
    lambda arrays: {**arrays, 'generator': np.zeros(1, np.float32)},
    lambda arrays: {**arrays, 'generator/more': np.zeros(1, np.float32)},
    lambda arrays: {name: array.astype(np.float64) for name, array in arrays.items()},
    lambda arrays: {**arrays, 'run/codes': np.zeros((3, 9), np.float32)},
    lambda arrays: {**arrays, 'mapper/dense7/kernel': np.zeros((8, 8), np.float32)},
  ],
)
def test_parameters_that_do_not_fit(copy, change):
  path = copy / 'params.safetensors'
  arrays = change(safetensors.numpy.load_file(path))
  data = arrays if isinstance(arrays, bytes) else safetensors.numpy.save(arrays)
  path.write_bytes(data)
  digest = {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
  edit(copy, lambda manifest: manifest['files'].update({path.name: digest}))
  with pytest.raises(RunError, match='is damaged .*: download it again') as error:
    step_jax.load(copy)
  assert '\n' not in str(error.value)


def test_oversized_files_are_not_read(copy):
  with (copy / 'params.safetensors').open('ab') as file:
    file.truncate(methods.names.FILES['params.safetensors'] + 1)
  with pytest.raises(RunError, match='larger than'):
    step_jax.load(copy)


def test_a_report_of_a_damaged_export_fails(copy, tmp_path, capsys):
  path = copy / 'params.safetensors'
  path.write_bytes(path.read_bytes()[:1000])
  out = tmp_path / 'page'
  assert cli.main(['report', '--workdir', str(copy), '--out', str(out)]) == 2
  (line,) = [line for line in capsys.readouterr().err.splitlines() if 'step-jax: ' in line]
  assert 'SHA-256' in line and not out.exists()


class Opened(UserError):
  """Raised instead of what a command does with an opened run."""


class Watch:
  """Records actions that reading must not do: starting programs, unpickling, writing."""

  def __init__(self, *allowed):
    self.allowed, self.seen, self.on = tuple(map(str, allowed)), [], False
    sys.addaudithook(self._hear)

  def _hear(self, event, arguments):
    if not self.on:
      return
    writes = event == 'open' and isinstance(arguments[2], int) and arguments[2] & 3
    changes = event in ('os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'shutil.rmtree')
    if writes or changes:
      if not isinstance(arguments[0], int) and not os.fspath(arguments[0]).startswith(self.allowed):
        self.seen.append((event, arguments))
    elif event.split('.')[0] in ('subprocess', 'pickle') or event in (
      'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'socket.connect'
    ):  # fmt: skip
      self.seen.append((event, arguments))


def places_of(tree, path=()):
  """Paths of all values in JSON."""
  items = tree.items() if isinstance(tree, dict) else enumerate(tree)
  for key, value in items:
    yield (*path, key)
    if isinstance(value, dict | list):
      yield from places_of(value, (*path, key))


def test_damaged_exports_end_in_one_line(exported, picture_folder, tmp_path, monkeypatch, capsys):
  """Damaged bytes and manifest values, also with correct digests of parameters."""
  out, folder = tmp_path / 'out', tmp_path / 'export'
  words = {'image': str(picture_folder / 'val' / '00.png'), 'data': str(picture_folder)}
  whole = {name: (exported / name).read_bytes() for name in methods.names.FILES}
  manifest = json.loads(whole['manifest.json'])
  # One shape and one program stand for all: their values are similar, and nobody reads them.
  spots = [spot for spot in places_of(manifest) if spot[0] not in ('programs', 'parameters')]
  caches = (os.environ[name] for name in ('STEP_JAX_CACHE', 'JAX_COMPILATION_CACHE_DIR'))
  watch = Watch(out, *caches, os.devnull)
  load, refused = methods.load, []

  def opened(*arguments):
    load(*arguments)
    raise Opened('opened')

  monkeypatch.setattr(methods, 'load', opened)

  def call(verb, workdir):
    more = [word.format(**words) for word in READING[verb]]
    return cli.main([verb, *more, '--workdir', str(workdir), '--out', str(out)])

  def damage(data):
    content = dict(whole)
    name = data.draw(st.sampled_from(['manifest.json', 'params.safetensors', 'a value']))
    if name == 'a value':
      tree = copies.deepcopy(manifest)
      *path, last = data.draw(st.sampled_from(spots))
      inner = tree
      for key in path:
        inner = inner[key]
      inner[last] = data.draw(st.sampled_from(ODD))
      content['manifest.json'] = json.dumps(tree).encode()
    else:
      content[name] = mutations.damaged(whole[name], data.draw(mutations.changes))
    if name == 'params.safetensors':
      tree = copies.deepcopy(manifest)
      tree['files'][name]['sha256'] = hashlib.sha256(content[name]).hexdigest()
      content['manifest.json'] = json.dumps(tree).encode()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, bytes_ in content.items():
      (folder / name).write_bytes(bytes_)

  @hypothesis.settings(
    max_examples=CASES, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )  # fmt: skip
  @hypothesis.given(st.data(), st.sampled_from(sorted(READING)))
  def read(data, verb):
    damage(data)
    before = listing(folder)
    watch.on = True
    try:
      status = call(verb, folder)
    finally:
      watch.on = False
    lines = [line for line in capsys.readouterr().err.splitlines() if 'step-jax: ' in line]
    assert status == 2 and len(lines) == 1 and lines[0].isprintable(), lines
    refused.append('opened' not in ''.join(lines))
    assert listing(folder) == before and not watch.seen, watch.seen
    assert {path.name for path in tmp_path.iterdir()} <= {'out', 'export'}

  for verb in READING:  # Imports may write to their caches.
    assert call(verb, exported) == 2
  capsys.readouterr()
  read()
  assert CASES // 4 < sum(refused) < len(refused)
