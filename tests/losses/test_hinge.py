"""Multi-scale GAN losses; tests/methods/superstylenet compares them with the original."""

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import losses

FAKE = [[jnp.full((2, 4, 4, 3), 2.0), jnp.full((2, 2, 2, 1), -3.0)], [jnp.ones((2, 3, 3, 1))] * 2]
REAL = [[jnp.full((2, 4, 4, 3), 5.0), jnp.full((2, 2, 2, 1), 0.5)], [jnp.ones((2, 3, 3, 1))] * 2]


def test_values_by_hand():
  fake, real = losses.hinge_discriminator_loss(FAKE, REAL)
  assert (fake, real) == ((0.0 + 2.0) / 2, (0.5 + 0.0) / 2)
  assert losses.hinge_generator_loss(FAKE) == (3.0 - 1.0) / 2
  assert losses.feature_matching_loss(FAKE, REAL) == (3.0 + 0.0) / 2


def test_targets_have_no_gradient():
  grad = jax.grad(losses.feature_matching_loss, argnums=(0, 1))
  to_fake, to_real = grad(FAKE, REAL)
  assert np.any(to_fake[0][0]) and not any(np.any(x) for x in jax.tree.leaves(to_real))
  x, y = ({'a': jnp.full((1, 2, 2, 1), value)} for value in (1.0, 4.0))
  value, grads = jax.value_and_grad(losses.perceptual_l1, argnums=(0, 1))(x, y, {'a': 0.5})
  assert value == 1.5 and np.all(grads[0]['a'] == -0.125) and not np.any(grads[1]['a'])
