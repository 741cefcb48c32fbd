"""Adam, learning rates and moving averages against the original (`case8`)."""

import golden_vectors as golden
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from step_jax.train import optimizers

VECTORS = golden.load('case8_schedule_ema_adam')


@pytest.mark.parametrize(
  ('kind', 'rate', 'b1', 'b2'), [('gan', 1e-3, 0.0, 0.99), ('imle', 1e-2, 0.5, 0.999)]
)
def test_adam_matches_tensorflow(kind, rate, b1, b2):
  adam = optimizers.scale_by_tf_adam(b1, b2)
  value = jnp.asarray(VECTORS[f'adam_{kind}_init'])
  state = adam.init(value)
  steps = zip(VECTORS[f'adam_{kind}_grads'], VECTORS[f'adam_{kind}_vals'], strict=True)
  for grad, expected in steps:
    direction, state = adam.update(jnp.asarray(grad), state)
    value = value - rate * direction
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-9)


def test_without_momentum_no_first_moment_is_kept():
  params = {'w': jnp.ones((3, 4))}
  sizes = lambda b1: sum(
    leaf.size for leaf in jax.tree.leaves(optimizers.scale_by_tf_adam(b1, 0.99).init(params))
  )
  assert sizes(0.0) == 1 + 12 and sizes(0.5) == 1 + 24


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), b1=st.sampled_from([0.0, 0.5, 0.9]))
def test_adam_agrees_with_optax_where_gradients_are_not_tiny(seed, b1):
  grads = 1 + jax.random.uniform(jax.random.key(seed), (4, 5))
  ours, theirs = optimizers.scale_by_tf_adam(b1, 0.99), optax.scale_by_adam(b1, 0.99)
  our_state, their_state = ours.init(grads[0]), theirs.init(grads[0])
  for grad in grads:
    a, our_state = ours.update(grad, our_state)
    b, their_state = theirs.update(grad, their_state)
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_rates_follow_the_original():
  columns = [str(name) for name in VECTORS['lr_cols']]
  for row in VECTORS['lr_table']:
    case = dict(zip(columns, row, strict=True))
    # With a batch of 1,000 a step is one kimg.
    step = jnp.int32(case['curr_kimg'])
    factor = optimizers.lr_factor(step, 1000, case['fixed_lr_kimg'], case['total_kimg'])
    np.testing.assert_allclose(1e-3 * factor, case['g_lr'], rtol=1e-5)
    np.testing.assert_allclose(1e-4 * factor, case['ez_lr'], rtol=1e-5)


def test_kimg_of_a_step():
  for step, kimg in VECTORS['kimg_of_step_bs8']:
    found = optimizers.lr_factor(jnp.int32(step), 8, 0, 10_000)
    expected = optimizers.lr_factor(jnp.int32(kimg), 1000, 0, 10_000)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_averages_match_the_original():
  # Rows of (value, average). In the second row the value is set but the average is not updated.
  sequence = VECTORS['ema_seq_var_shadow'][1:]
  for (_, before), (value, after) in zip(sequence, sequence[1:], strict=False):
    average = optimizers.ema_update(jnp.asarray(before), jnp.asarray(value), 0.999)
    np.testing.assert_allclose(average, after, rtol=1e-6)


def test_an_average_of_a_constant_is_exact():
  value = jax.random.normal(jax.random.key(0), (100,))
  np.testing.assert_array_equal(optimizers.ema_update(value, value, 0.999), value)


def test_averages_have_a_warm_up():
  decay = [float(optimizers.ema_decay(jnp.int32(step), 0.999)) for step in (0, 90, 20_000)]
  np.testing.assert_allclose(decay, [0.1, 0.91, 0.999], rtol=1e-6)
