"""Exports are opened as runs: the same outputs, nothing written, damage told in one line."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

import step_jax
from step_jax import cli, methods
from step_jax.errors import ConfigError, RunError
from step_jax.export import artefact
from step_jax.methods.step import programs


@pytest.fixture(scope='module')
def run(trained_run):
  return step_jax.load(trained_run[0])


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
