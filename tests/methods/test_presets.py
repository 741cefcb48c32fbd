"""Every row of the paper's ablation trains."""

import jax
import numpy as np
import pytest
import tiny

from step_jax import config as config_lib
from step_jax import models
from step_jax.methods.step import METHOD
from step_jax.methods.step.steps import plan, translate

TRANSLATE = config_lib.stage_file('translate')


# Versions 2 and 3 of a baseline differ from the first in how codes are drawn and held to a
# distribution, and those of StEP leave out one term after another: the step's vectors test that. By
# default one of each baseline trains, and the first and the last version of StEP.
ALIKE = ('bicyclegan_v2', 'bicyclegan_v3', 'munit_p_v2', 'munit_p_v3', 'step_v2', 'step_v3')


@pytest.mark.parametrize(
  'preset',
  [pytest.param(p, marks=[pytest.mark.long] * (p in ALIKE)) for p in sorted(METHOD.presets)],
)
def test_every_preset_trains_two_steps(preset):
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
  state = jax.jit(method.init)(jax.random.key(0))
  before = jax.device_get(state.params)
  step = jax.jit(method.train_step)
  for _ in range(2):
    state, metrics = step(state, batch, {'features': params})
    assert all(np.isfinite(value) for value in jax.device_get(metrics).values()), metrics
  moved = {
    name: not all(jax.tree.leaves(jax.tree.map(np.array_equal, tree, jax.device_get(after))))
    for (name, tree), after in zip(before.items(), state.params.values(), strict=True)
  }
  frozen = not config.train_encoder and 'style_encoder' in moved
  assert moved == {name: not (frozen and name == 'style_encoder') for name in moved}
