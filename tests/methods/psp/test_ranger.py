"""Ranger against 25 steps of the reference."""

import functools

import golden_vectors as golden
import jax
import jax.numpy as jnp
import numpy as np
import psp_vectors
import pytest

from step_jax.methods.psp import ranger, torch_state


def tree(vectors, prefix, axis):
  """Arrays under a prefix with our axes; the first `axis` axes are unchanged."""
  convert = {
    'conv_OIhw': lambda x: x.transpose(2, 3, 1, 0),
    'linear_out_in': torch_state.linear,
    'bias': lambda x: x,
  }
  found = {}
  for name, change in convert.items():
    x = vectors[f'{prefix}::{name}']
    x = np.stack([change(y) for y in x]) if axis else change(x)
    found[name] = {'bias' if name == 'bias' else 'kernel': x}
  return found


@pytest.mark.parametrize(
  ('tag', 'options'),
  [
    ('lr1e-2', {}),
    ('lr1e-2_wd0.1', {'weight_decay': 0.1}),
    ('lr1e-2_gcconvonly', {'conv_only': True}),
  ],
)
def test_trajectories(tag, options):
  vectors = psp_vectors.load('20_ranger')
  params, grads = tree(vectors, 'p0', 0), tree(vectors, 'grads', 1)
  expected = tree(vectors, tag, 1)
  transform = ranger.ranger(1e-2, **options)

  def step(carry, gradient):
    params, state = carry
    moves, state = transform.update(gradient, state, params)
    params = jax.tree.map(lambda p, d: p - d, params, moves)
    return (params, state), params

  run = jax.jit(functools.partial(jax.lax.scan, step))
  _, found = run((params, transform.init(params)), grads)
  jax.tree.map(functools.partial(golden.assert_close, tolerance=1e-5), found, expected)


def test_step_sizes():
  vectors = psp_vectors.load('20_ranger')
  sizes, rectified_from = ranger.step_sizes(0.95, 0.999)
  np.testing.assert_allclose(sizes[1:26], vectors['step_size'], rtol=1e-6)
  assert rectified_from == 1 + np.argmax(vectors['n_sma'] > 5) == 6
  # The last value applies to all later steps.
  assert abs(sizes[-1] - 1) < 1e-6


def test_stacked_heads_are_centralised_separately():
  path = (jax.tree_util.DictKey('kernel'),)
  for shape in ((3, 2, 4), (3, 3, 3, 2, 4), (2, 4), (3, 3, 2, 4)):
    g = jax.random.normal(jax.random.key(0), shape)
    stacked = len(shape) in (3, 5)
    one = [ranger.centralise(path, x) for x in g] if stacked else ranger.centralise(path, g)
    np.testing.assert_allclose(ranger.centralise(path, g), jnp.asarray(one), atol=1e-6)
    flat = np.asarray(ranger.centralise(path, g)[0] if stacked else one).reshape(-1, 4)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-6)
  bias = jax.random.normal(jax.random.key(0), (3, 4))
  assert ranger.centralise((jax.tree_util.DictKey('bias'),), bias) is bias
