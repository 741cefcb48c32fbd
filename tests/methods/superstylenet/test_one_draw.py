"""Parameters from a single draw have the same distribution as from separate draws."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from step_jax.methods.superstylenet import one_draw


class Net(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(64, name='first')(x))
    uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    return nn.Dense(64, kernel_init=uniform, name='second')(x)


def test_the_same_distributions():
  init = lambda key: Net().init(key, jnp.zeros((1, 64)))['params']
  plain = init(jax.random.key(0))
  drawn = jax.jit(one_draw.from_one_draw(init))(jax.random.key(0))
  assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, drawn)
  for name in plain:
    kernel, expected = drawn[name]['kernel'], plain[name]['kernel']
    np.testing.assert_allclose(kernel.std(), expected.std(), rtol=0.05)
    np.testing.assert_allclose(np.abs(kernel).max(), np.abs(expected).max(), rtol=0.25)
    assert abs(kernel.mean()) < 3 * kernel.std() / 64
  first, second = (drawn[name]['kernel'].reshape(-1) for name in ('first', 'second'))
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
  again = one_draw.from_one_draw(init)(jax.random.key(0))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), drawn, again)
  other = one_draw.from_one_draw(init)(jax.random.key(1))
  assert not np.array_equal(other['first']['kernel'], drawn['first']['kernel'])
