"""Simultaneous, alternating and lazy steps from the same two functions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from step_jax.methods import state as state_lib
from step_jax.train import checkpoint

PARAMS = {'a': {'w': jnp.array([1.0, -2.0])}, 'b': {'w': jnp.array([0.5])}}


def make(transform=None, stats=None):
  transform = transform or optax.scale_by_adam()
  optimizers = {
    'first': state_lib.Optimizer(('a',), transform, lambda step: 0.1),
    'second': state_lib.Optimizer(('a', 'b'), transform, lambda step: 0.01 * (1 + step)),
  }
  copied = jax.tree.map(jnp.copy, PARAMS)
  return state_lib.create(copied, optimizers, ('a',), stats=stats), optimizers


def grads_of(state, networks):
  return {name: jax.tree.map(jnp.sin, state.params[name]) for name in networks}


def test_networks_that_two_optimizers_share_move_by_both():
  state, optimizers = make(optax.identity())
  grads = {name: grads_of(state, opt.networks) for name, opt in optimizers.items()}
  after = state_lib.apply_gradients(state, optimizers, grads, ema_decay=0.5)
  moved = PARAMS['a']['w'] - 0.11 * jnp.sin(PARAMS['a']['w'])
  np.testing.assert_allclose(after.params['a']['w'], moved, rtol=1e-6)
  np.testing.assert_allclose(after.ema['a']['w'], (moved + PARAMS['a']['w']) / 2, rtol=1e-6)
  assert int(after.step) == 1 and after.stats is None


def test_gradient_norms_are_by_network():
  state, optimizers = make()
  grads = {name: grads_of(state, opt.networks) for name, opt in optimizers.items()}
  norms = state_lib.gradient_norms(grads)
  sines = {name: np.sin(PARAMS[name]['w']) for name in 'ab'}
  # Network `a` has two gradients, which are added.
  assert norms.keys() == {'grad_norm/a', 'grad_norm/b'}
  np.testing.assert_allclose(norms['grad_norm/a'], 2 * np.linalg.norm(sines['a']), rtol=1e-6)
  np.testing.assert_allclose(norms['grad_norm/b'], np.linalg.norm(sines['b']), rtol=1e-6)


def test_lazy_updates_in_one_program_equal_separate_calls():
  state, optimizers = make(stats={'mean': jnp.zeros(())})

  def separate(state):
    due = int(state.step) % 3 == 0
    state = state_lib.update(state, 'first', optimizers['first'], grads_of(state, ('a',)))
    if due:
      second = optimizers['second']
      state = state_lib.update(state, 'second', second, grads_of(state, second.networks))
    return state_lib.finish(state, 0.9, {'mean': state.stats['mean'] + 1})

  @jax.jit
  def lazy(state):
    second = optimizers['second']
    state = state_lib.update(state, 'first', optimizers['first'], grads_of(state, ('a',)))
    state = jax.lax.cond(
      state.step % 3 == 0,
      lambda state: state_lib.update(state, 'second', second, grads_of(state, second.networks)),
      lambda state: state,
      state,
    )
    return state_lib.finish(state, 0.9, {'mean': state.stats['mean'] + 1})

  one, other = state, state
  for _ in range(8):
    one, other = separate(one), lazy(other)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, other)
  assert float(one.stats['mean']) == 8 and int(one.opt['second'].count) == 3


@pytest.mark.parametrize('decay', [0.0, 0.1])
def test_transforms_see_the_parameters(decay):
  transform = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(decay))
  state, optimizers = make(transform)
  zero = {'a': {'w': jnp.zeros(2)}}
  after = state_lib.update(state, 'first', optimizers['first'], zero)
  np.testing.assert_allclose(after.params['a']['w'], PARAMS['a']['w'] * (1 - 0.1 * decay))


def test_a_checkpoint_from_before_there_were_stats_restores(tmp_path):
  state, _ = make()
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  saved = checkpoint.Checkpoints(tmp_path)
  old = {name: getattr(state, name) for name in ('step', 'params', 'ema', 'opt')}
  saved.save(1, old)
  saved.close()
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
  reader = checkpoint.Checkpoints(tmp_path, create=False)
  step, restored = reader.restore_newest(like)
  reader.close()
  assert step == 1 and restored.stats is None
  jax.tree.map(np.testing.assert_array_equal, restored, state)
