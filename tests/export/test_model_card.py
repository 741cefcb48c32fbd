"""Header and tables of a model card, from a made-up manifest and results."""

import math
import types

import pytest
import yaml

from step_jax.errors import ConfigError
from step_jax.export import artefact, readme

ARRAY = {'name': 'sources', 'shape': ['b', '8*h', '8*w', 3], 'dtype': 'uint8'}
MANIFEST = {
  'step_jax': '1.0',
  'jax': '0.12',
  'calling_convention': 10,
  'platforms': ['cpu'],
  'method': 'step',
  'stage': 'finetune',
  'step': 7,
  'licence': artefact.LICENCE,
  'programs': {
    'generate': {'inputs': [ARRAY], 'outputs': [ARRAY], 'constraints': [], 'does': 'translates'}
  },
  'config': {'data.path': 'facades: "mine"'},
}


def score(value, **more):
  return {
    'group': 'reconstruction',
    'hash': 'abc123',
    'title': 'peak signal-to-noise ratio in dB',
    'better': 'higher',
    'interval': [value - 1, value + 1] if value else None,
    'value': value,
    **more,
  }


RESULTS = {
  'stage': 'finetune',
  'step': 7,
  'data': {'path': '/home/me/facades', 'split': 'val'},
  'pictures': ['a', 'b'],
  'scores': {'psnr/uint8': score(14.5), 'ssim/uint8': score(None, title='structural similarity')},
}


def head(text):
  start, head, body = text.split('---\n', 2)
  assert not start
  return yaml.safe_load(head), body


def test_metadata_for_the_hub():
  card, body = head(readme.text(MANIFEST, ['generate A B'], RESULTS, 'cc-by-4.0'))
  assert card['library_name'] == 'step_jax' and card['pipeline_tag'] == 'image-to-image'
  assert card['license'] == 'cc-by-4.0' and 'license_name' not in card
  ((result,),) = (model['results'] for model in card['model-index'])
  assert result['dataset'] == {
    'type': 'facades: "mine"', 'name': 'facades: "mine"', 'split': 'val'
  }  # fmt: skip
  (metric,) = result['metrics']  # Scores without a value are left out.
  assert metric['type'] == 'psnr/uint8' and math.isclose(metric['value'], 14.5)
  assert 'abc123' in metric['name']
  assert '| psnr/uint8 | abc123 | 14.5000 | [13.5000, 15.5000] |' in body
  assert 'python load_example.py generate A B' in body and '/home/me' not in body


def test_without_scores_or_a_licence():
  card, body = head(readme.text(MANIFEST, []))
  assert card['license'] == 'other' and card['license_name'] and 'model-index' not in card
  assert '`step-jax evaluate` was not run' in body and artefact.LICENCE in body


def test_a_licence_is_an_identifier(tmp_path):
  for licence in ('CC BY 4.0', 'x\ny: 1', ''):
    with pytest.raises(ConfigError, match='--licence'):
      artefact.write(types.SimpleNamespace(), tmp_path / 'out', licence=licence)
