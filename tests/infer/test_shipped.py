"""The runs that come with the package: small, as good as docs/results.md says, read-only."""

import json
import pathlib

import numpy as np
import pytest

import step_jax
from step_jax import cli, data, methods
from step_jax import config as config_lib
from step_jax.errors import RunError
from step_jax.evaluate import results, segmenter
from step_jax.methods import names

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ('swatches-psp', 'swatches-step', 'swatches-superstylenet')
MOST_BYTES = 4_000_000


def test_every_method_has_one():
  assert methods.shipped() == [f'shipped:{name}' for name in NAMES]
  loaded = {step_jax.load(name).method for name in methods.shipped()}
  assert loaded == {'step', 'psp', 'superstylenet'}


@pytest.mark.parametrize('name', NAMES)
def test_it_is_small(name):
  files = list((names.SHIPPED / name).iterdir())
  assert {path.name for path in files} == set(names.FILES)
  assert sum(path.stat().st_size for path in files) < MOST_BYTES


@pytest.mark.parametrize('name', ['swatches', '../methods', '', '/etc'])
def test_others_are_refused_in_one_line(name):
  with pytest.raises(RunError, match='no such run: choose one of shipped:swatches-psp, '):
    step_jax.load(f'shipped:{name}')


def written(name):
  """Scores in the docs: protocol -> one number for each validation image."""
  scores = json.loads((ROOT / f'docs/results/shipped_{name}.json').read_text('utf-8'))['scores']
  return {protocol: np.asarray(score['values'], float) for protocol, score in scores.items()}


@pytest.mark.parametrize('name', ['swatches-psp', 'swatches-step'])
def test_its_scores_are_those_of_the_docs(name, tmp_path, monkeypatch):
  few = {**segmenter.SETTINGS, 'steps': 4, 'width': 4}
  monkeypatch.setattr(segmenter, 'SETTINGS', few)  # Its scores are not compared.
  scores = results.evaluate(f'shipped:{name}', groups=['reconstruction'], out=tmp_path)['scores']
  for protocol, tolerance in {'psnr/uint8': 0.02, 'ssim/uint8': 0.001}.items():
    values = np.asarray(scores[protocol]['values'])
    np.testing.assert_allclose(values, written(name)[protocol], atol=10 * tolerance)
    assert abs(np.mean(values - written(name)[protocol])) < tolerance


def test_its_regions_score_as_in_the_docs():
  """Of a few images, as codes take long to compute for all."""
  name = 'swatches-superstylenet'
  run = step_jax.load(f'shipped:{name}')
  split = data.open_config(run.config.data).split('val')
  for i, psnr in enumerate(written(name)['psnr/uint8'][:4]):
    image, labels = split[i]['B'], split[i]['labels']
    output = run.translate(labels, run.encode(image, labels))
    error = np.mean(np.square(image.astype(float) - output)) / 255**2
    assert abs(-10 * np.log10(error) - psnr) < 0.2


def test_nothing_is_trained_or_written_under_its_name(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  name = f'shipped:{NAMES[1]}'
  for words in (['train', 'pretrain', '--data', 'swatches'], ['prepare', '.', '--out', name]):
    more = ['--workdir', name] if words[0] == 'train' else []
    with pytest.raises(SystemExit):
      cli.main([*words, *more])
    assert 'are read-only: give a folder' in capsys.readouterr().err.splitlines()[-1]
  with pytest.raises(RunError, match='are read-only'):
    methods.train(config_lib.load(f'{config_lib.stage_file("pretrain")}:swatches'), name)
  assert not list(tmp_path.iterdir())


def test_the_page_opens_without_a_run(monkeypatch):
  served = []
  monkeypatch.setattr('step_jax.demo.serve', lambda *args: served.append(args))
  assert cli.main(['demo']) == 0
  assert served[0][0] == names.SHIPPED / 'swatches-step'
