"""The runs that come with the package: small, as good as docs/results.md says, read-only."""

import json
import pathlib

import numpy as np
import pytest

import step_jax
from step_jax import cli, methods
from step_jax.errors import RunError
from step_jax.evaluate import results
from step_jax.methods import names

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ('swatches-psp', 'swatches-step', 'swatches-superstylenet')
MOST_BYTES = 4_000_000


def test_every_method_has_one():
  assert methods.shipped() == [f'shipped:{name}' for name in NAMES]
  assert {step_jax.load(name).method for name in methods.shipped()} == set(methods.METHODS)


@pytest.mark.parametrize('name', NAMES)
def test_it_is_small(name):
  files = list((names.SHIPPED / name).iterdir())
  assert {path.name for path in files} == set(names.FILES)
  assert sum(path.stat().st_size for path in files) < MOST_BYTES


@pytest.mark.parametrize('name', ['swatches', '../methods', '', '/etc'])
def test_others_are_refused_in_one_line(name):
  with pytest.raises(RunError, match='no such run: choose one of shipped:swatches-psp, '):
    step_jax.load(f'shipped:{name}')


@pytest.mark.parametrize('name', NAMES)
def test_its_scores_are_those_of_the_docs(name, tmp_path):
  written = json.loads((ROOT / f'docs/results/shipped_{name}.json').read_text('utf-8'))
  scores = results.evaluate(f'shipped:{name}', groups=['reconstruction'], out=tmp_path)['scores']
  for protocol, tolerance in {'psnr/uint8': 0.02, 'ssim/uint8': 0.001}.items():
    now, then = (of[protocol]['values'] for of in (scores, written['scores']))
    np.testing.assert_allclose(now, then, atol=10 * tolerance)
    assert abs(np.mean(now) - np.mean(then)) < tolerance


def test_the_page_opens_without_a_run(monkeypatch):
  served = []
  monkeypatch.setattr('step_jax.demo.serve', lambda *args: served.append(args))
  assert cli.main(['demo']) == 0
  assert served[0][0] == names.SHIPPED / 'swatches-step'
