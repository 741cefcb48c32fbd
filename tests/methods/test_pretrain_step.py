"""Five steps of pre-training against the original (`case5`)."""

import golden_vectors as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax.methods.step.original import step_tf
from step_jax.methods.step.original.step_tf import from_step_tf
from step_jax.methods.step.steps import pretrain

VECTORS = golden.load('case5_losses')


@pytest.mark.parametrize('fill', 'AB')
def test_five_steps_match_the_original(fill):
  method = pretrain.make(config_lib.load(config_lib.stage_file('pretrain')))
  variables = golden.draw_variables(golden.load('case1_style_encoder'), fill)
  params = jax.tree.map(jnp.asarray, from_step_tf(variables))
  state = method.init(jax.random.key(0)).replace(params=params)
  batch = {
    role: VECTORS[f'pre_{key}']
    for role, key in (('anchor', 'anc'), ('positive', 'pos'), ('negative', 'neg'))
  }
  step = jax.jit(method.train_step)
  for total, triplet, regulariser in VECTORS[f'pre_{fill}_traj_total_triplet_reg'][:5]:
    state, metrics = step(state, batch, {})
    np.testing.assert_allclose(metrics['loss'], total, rtol=2e-3)
    np.testing.assert_allclose(metrics['triplet'], triplet, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(0.01 * metrics['z_l2'], regulariser, rtol=5e-3)
  for name, norm in zip(variables, VECTORS[f'pre_{fill}_step5_norm'], strict=True):
    leaf = state.params
    for part in step_tf.step_tf_path(name):
      leaf = leaf[part]
    np.testing.assert_allclose(golden.norm(leaf), norm, rtol=5e-3, err_msg=name)
