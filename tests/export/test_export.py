"""Exports: their content, use without step_jax, and protection of other files."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import step_jax
from step_jax import cli, export
from step_jax.errors import RunError
from step_jax.evaluate import results
from step_jax.methods.step import programs
from step_jax.methods.step import run as step_run

# All that a user without step_jax needs: JAX, its dependencies, and a reader of programs.
BARE = ('jax', 'jaxlib', 'numpy', 'ml_dtypes', 'opt_einsum', 'scipy', 'flatbuffers')
# Runs a script with its `sys.argv` in an environment without other packages.
STARTER = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
for foreign in ('step_jax', 'flax', 'safetensors', 'orbax', 'optax'):
  try:
    __import__(foreign)
  except ModuleNotFoundError:
    continue
  raise SystemExit(f'{foreign} is there')
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope='module')
def run(trained_run):
  return step_jax.load(trained_run[0])


@pytest.fixture(scope='module')
def exported(trained_run, tmp_path_factory):
  out = tmp_path_factory.mktemp('exports') / 'mine'
  assert cli.main(['export', '--workdir', str(trained_run[0]), '--out', str(out)]) == 0
  return out


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
  """A package folder with only JAX and its dependencies."""
  folder = tmp_path_factory.mktemp('packages')
  for name in BARE:
    package = pathlib.Path(importlib.util.find_spec(name).origin).parent
    (folder / name).symlink_to(package)
    libraries = package.with_name(f'{name}.libs')
    if libraries.is_dir():
      (folder / libraries.name).symlink_to(libraries)
  return folder


def stranger(bare, exported, *arguments):
  """Runs the example of an export in a process without step_jax."""
  command = [sys.executable, '-I', '-S', '-c', STARTER, bare, exported / 'load_example.py']
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'STEP_JAX'))}
  return subprocess.run(
    [*map(str, command), *map(str, arguments)],
    env={**environment, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize('shape', [(1, 16, 24, 3), (3, 37, 18, 3)])
def test_equal_outputs_in_a_bare_environment(run, exported, bare, tmp_path, shape):
  """Codes agree up to rounding, images within one level; odd sizes are padded as ours."""
  pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  np.save(tmp_path / 'in.npy', pictures)
  for command in (
    ('encode', tmp_path / 'in.npy', tmp_path / 'codes.npy'),
    ('generate', tmp_path / 'in.npy', tmp_path / 'codes.npy', tmp_path / 'out.npy'),
  ):
    done = stranger(bare, exported, *command)
    assert done.returncode == 0, done.stderr
  codes, made = np.load(tmp_path / 'codes.npy'), np.load(tmp_path / 'out.npy')
  np.testing.assert_allclose(codes, run.encode(pictures), rtol=1e-4, atol=1e-5)
  assert made.dtype == np.uint8 and made.shape == shape
  assert np.abs(made.astype(int) - run.translate(pictures, codes)).max() <= 1


def test_drawn_styles_are_the_same(run, exported, bare, tmp_path):
  done = stranger(bare, exported, 'sample', 5, tmp_path / 'codes.npy')
  assert done.returncode == 0, done.stderr
  np.testing.assert_allclose(np.load(tmp_path / 'codes.npy'), run.draw(5), rtol=1e-4, atol=1e-5)


def test_damaged_files_are_detected(exported, bare, tmp_path):
  copy = tmp_path / 'copy'
  copy.mkdir()
  for path in exported.iterdir():
    (copy / path.name).write_bytes(path.read_bytes())
  data = bytearray((copy / 'params.safetensors').read_bytes())
  data[-1] ^= 1
  (copy / 'params.safetensors').write_bytes(data)
  done = stranger(bare, copy, 'sample', 5, tmp_path / 'codes.npy')
  assert done.returncode == 1 and 'differs from the exported file' in done.stderr


def test_the_manifest_is_complete(run, exported, picture_folder):
  manifest = json.loads((exported / 'manifest.json').read_text())
  assert manifest['format'] == export.FORMAT
  assert manifest['platforms'] == ['cpu', 'cuda', 'tpu']
  generate = manifest['programs']['generate']
  assert generate['inputs'][0] == {
    'name': 'sources',
    'shape': ['b', '8*h', '8*w', 3],
    'dtype': 'uint8',
  }
  assert generate['outputs'][0]['shape'] == ['b', '8*h', '8*w', 3]
  assert manifest['programs']['encode']['outputs'][0]['shape'] == ['b', 8]
  files = {path.name for path in exported.iterdir()}
  assert files == {*manifest['files'], 'manifest.json'}
  assert {p['file'] for p in manifest['programs'].values()} < files
  taken = {name for p in manifest['programs'].values() for name in p['parameters']}
  assert taken | {'run/codes'} == set(manifest['parameters'])
  assert manifest['config']['model.generator_width'] == 4
  assert manifest['step'] == run.step and manifest['stage'] == 'finetune'


def test_nothing_tells_of_the_machine(exported, trained_run, picture_folder):
  told = b''.join(path.read_bytes() for path in exported.iterdir())
  for secret in (str(picture_folder), str(trained_run[0]), str(pathlib.Path.cwd())):
    assert secret.encode() not in told
  assert not re.search(rb'site-packages|/step_jax/', told)


def test_the_parameters_are_the_averages(run, exported):
  import safetensors.numpy

  found = safetensors.numpy.load_file(exported / 'params.safetensors')
  mine = run.params['generator']['decoder']['rgb']['kernel']
  np.testing.assert_array_equal(found['generator/decoder/rgb/kernel'], mine)


def test_an_export_is_replaced_and_nothing_else(run, trained_run, exported, tmp_path, monkeypatch):
  scores = results.find(trained_run[0])
  before = (exported / 'manifest.json').read_bytes()
  (exported / 'README.md').unlink()
  export.write(run, exported, results=scores)
  assert (exported / 'manifest.json').read_bytes() == before
  assert (exported / 'README.md').is_file()

  other = tmp_path / 'other'
  other.mkdir()
  (other / 'manifest.json').write_text('{"name": "an app"}')
  with pytest.raises(RunError, match='is no export'):
    export.write(run, other)
  assert (other / 'manifest.json').read_text() == '{"name": "an app"}'

  monkeypatch.setattr(export.artefact, '_manifest', lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    export.write(run, exported)
  assert (exported / 'manifest.json').read_bytes() == before
  assert list(exported.parent.iterdir()) == [exported]


def test_the_page_is_a_model_card(exported):
  text = (exported / 'README.md').read_text()
  assert text.startswith('---\nlibrary_name: "step_jax"\n') and '| psnr/uint8 |' in text


def test_a_run_without_a_mapper(run):
  alone = step_run.Translator(run.config, run.step, run.params)
  assert set(programs.bundle(alone, ['cpu']).programs) == {'encode', 'generate'}
