"""Every preset can be trained."""

import jax
import numpy as np
import pytest
import tiny

from step_jax import config as config_lib
from step_jax import models
from step_jax.methods.step import METHOD
from step_jax.methods.step.steps import plan, translate

TRANSLATE = config_lib.stage_file('translate')


# One preset of each baseline trains by default, since no other test trains it; for all others the
# step is traced. The reference vectors test what they compute.
TRAINED = ('bicyclegan_v1', 'munit_p_v1')


@pytest.mark.parametrize('preset', sorted(set(METHOD.presets) - set(TRAINED)))
def test_every_preset_has_a_step(preset):
  method, batch, frozen, _ = case_of(preset)
  state = jax.eval_shape(method.init, jax.random.key(0))
  after, metrics = jax.eval_shape(method.train_step, state, batch, frozen)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert metrics


@pytest.mark.parametrize(
  'preset',
  [pytest.param(p, marks=[pytest.mark.long] * (p not in TRAINED)) for p in sorted(METHOD.presets)],
)
def test_every_preset_trains_two_steps(preset):
  method, batch, frozen, trained = case_of(preset)
  state = jax.jit(method.init)(jax.random.key(0))
  before = jax.device_get(state.params)
  step = jax.jit(method.train_step)
  for _ in range(2):
    state, metrics = step(state, batch, frozen)
    assert all(np.isfinite(value) for value in jax.device_get(metrics).values()), metrics
  moved = {
    name: not all(jax.tree.leaves(jax.tree.map(np.array_equal, tree, jax.device_get(after))))
    for (name, tree), after in zip(before.items(), state.params.values(), strict=True)
  }
  assert moved == {name: trained or name != 'style_encoder' for name in moved}


def case_of(preset):
  """Step, batch, frozen parameters, and whether the style encoder is trained."""
  config = config_lib.load(f'{TRANSLATE}:swatches,preset={preset}')
  known = dict(config_lib.flatten(config))
  fields = {**tiny.FIELDS, 'batch_size': 2, 'model.num_scales': 1}
  config.update_from_flattened_dict({k: v for k, v in fields.items() if k in known})
  features = models.FEATURE_NETS['squeezenet1_1'](taps=('conv1',))
  pictures = np.random.default_rng(0).integers(0, 256, (4, 2, 16, 16, 3)).astype(np.uint8)
  roles = ('source', 'target', 'source_b', 'target_b')
  batch = dict(zip(roles, pictures, strict=True))
  if not plan.Plan.of(config).cycle:
    batch = {role: batch[role] for role in roles[:2]}
  params = features.init(jax.random.key(1), np.zeros((1, 16, 16, 3), np.float32))['params']
  method = translate.make(config, features)
  return method, batch, {'features': params}, config.train_encoder
