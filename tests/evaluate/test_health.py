"""Training diagnostics of healthy and of failing runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from step_jax import data, weights
from step_jax.methods.step.models import MultiScaleDiscriminator
from step_jax.methods.step.scores import health
from step_jax.methods.step.stages import translate as translate_stage
from step_jax.methods.step.steps import translate
from step_jax.report import charts
from step_jax.train import mesh as mesh_lib


def values(z, styles=0.5, **more):
  ones = np.ones(len(z))
  return {'z': z, 'styles': styles * ones, 'photos': ones, 'change': 0.2 * ones} | {
    'code_change': 2 * ones,
    **more,
  }


def codes(*deviations, count=500):
  return np.random.default_rng(0).standard_normal((count, len(deviations))) * deviations


def test_a_healthy_run_is_not_warned_about():
  judged = {'judged_real': np.full(500, 0.7), 'judged_encoded': np.full(500, 0.3)}
  found = health.summarize(values(codes(1, 1, 1, 1), **judged))
  assert found['diversity'] == 0.5 and found['sensitivity'] == pytest.approx(0.1)
  assert found['code_dimensions'] == pytest.approx(4, abs=0.2)
  assert found['code_deviation/3'] == pytest.approx(1, abs=0.1)
  assert found['judged_real'] == 0.7
  assert health.warnings(found) == []


@pytest.mark.parametrize(
  'bad, message',
  [
    (values(codes(1, 1), styles=0.01), 'ignores the style'),
    (values(codes(1, 1e-3, 1e-3)), 'all but collapsed'),
    (values(codes(1e-5, 1e-5)), 'encoder has collapsed'),
    (values(np.zeros((9, 2))), 'encoder has collapsed'),
    (values(codes(1, 1), judged_real=np.ones(9), judged_encoded=np.zeros(9)), 'discriminator wins'),
  ],
)
def test_problems_are_reported(bad, message):
  (line,) = health.warnings(health.summarize(bad))
  assert message in line


def test_a_certain_discriminator_depends_on_its_loss():
  bad = health.summarize(
    values(codes(1, 1), judged_real=np.ones(9), judged_encoded=np.full(9, -0.5))
  )
  assert health.warnings(bad, 1.0) and not health.warnings(bad, 2.0)


def test_no_warning_without_styles():
  assert health.warnings(health.summarize(values(np.zeros((9, 0))))) == []


def test_sampled_codes_have_the_spread_of_the_given_ones():
  z = codes(1, 5).astype(np.float32) @ np.float32([[1, 0.5], [0, 1]])
  drawn = health.draw_like(z, 0)
  assert drawn.shape == z.shape and drawn.dtype == z.dtype
  np.testing.assert_allclose(np.cov(drawn.T), np.cov(z.T), rtol=0.3)
  assert not np.array_equal(drawn, health.draw_like(z, 1))


def test_judgements_are_per_image():
  module = MultiScaleDiscriminator(width=4, num_scales=2)
  pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3)).astype(np.uint8)
  params = module.init(jax.random.key(0), *pictures.astype(np.float32))['params']
  found = health.judge(module, params, pictures[0], {'real': pictures[1], 'other': pictures[0]})
  assert found['real'].shape == (3,) and not np.allclose(found['real'], found['other'])


def test_training_logs_them(trained_run):
  from step_jax.train import writers

  workdir, _ = trained_run
  for stage in ('translate', 'finetune'):
    row = [row for row in writers.read_metrics(workdir / stage) if 'val_psnr' in row][-1]
    for name in ('diversity', 'sensitivity', 'code_dimensions', 'judged_drawn'):
      assert f'val_{name}' in row


def test_the_log_warns_of_a_dead_encoder(picture_folder, caplog, monkeypatch):
  config = tiny.make_config('translate', picture_folder)
  features = weights.load_features(config.features.net, config.features.taps, 'random')
  state = jax.jit(translate.make(config, features.module).init)(jax.random.key(0))
  dead = jax.tree.map(jnp.zeros_like, state.ema['style_encoder'])
  mesh = mesh_lib.make_mesh()
  frozen = mesh_lib.put_replicated(mesh, {'features': features.params})
  found = data.open_data(str(picture_folder))
  evaluate = translate_stage._evaluator(config, found, features.module, frozen, mesh)
  read, get = [], type(found.split('val')).__getitem__
  monkeypatch.setattr(
    type(found.split('val')),
    '__getitem__',
    lambda self, index: read.append(index) or get(self, index),
  )
  measured = evaluate(state.replace(ema={**state.ema, 'style_encoder': dead})).scalars
  assert read == list(range(found.splits['val']))
  assert measured['val_diversity'] == 0 and measured['val_code_deviation/0'] == 0
  assert 'the style encoder has collapsed' in caplog.text
  assert 'the generator ignores the style (mode collapse)' in caplog.text


def test_metrics_of_a_family_share_a_chart():
  rows = [{'step': i, 'a/0': i, 'a/1': 2 * i, 'b': 1} for i in range(3)]
  assert charts.curves(rows).count('id="axes_') == 2
