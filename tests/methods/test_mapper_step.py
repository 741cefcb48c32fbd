"""IMLE against the original (`case9`)."""

import golden_vectors as golden
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax.methods.step.models import Mapper
from step_jax.methods.step.steps import mapper
from step_jax.train import optimizers

VECTORS = golden.load('case9_imle')
LAYERS = {'dense': 'dense0', 'dense_1': 'dense1', 'dense_2': 'dense2', 'dense_3': 'out'}


def params_of(fill):
  params = {}
  for name, value in golden.draw_variables(VECTORS, fill).items():
    layer, leaf = name.split('/')
    params.setdefault(LAYERS[layer], {})[leaf] = value
  return params


@pytest.mark.parametrize('fill', 'AC')
def test_mapper_and_pairing_match_the_original(fill):
  module, params = Mapper(), params_of(fill)
  apply = jax.jit(lambda z: module.apply({'params': params}, z))
  golden.assert_close(apply(VECTORS['z']), VECTORS[f'{fill}_out'])
  samples = apply(VECTORS['zs'])
  golden.assert_close(samples[:64], VECTORS[f'{fill}_samples_first64'])
  codes = VECTORS['data']
  index = jax.jit(mapper.nearest_samples)(codes, samples)
  distance = np.linalg.norm(codes - np.asarray(samples)[index], axis=1)
  np.testing.assert_allclose(distance, VECTORS[f'{fill}_nn_dist'], rtol=1e-5)
  # Where the two nearest are equal up to rounding, either is correct.
  clear = VECTORS[f'{fill}_nn_gap'] > 1e-5
  np.testing.assert_array_equal(np.asarray(index)[clear], VECTORS[f'{fill}_nn_idx'][clear])


@pytest.mark.parametrize('fill', 'AC')
def test_ten_steps_match_the_original(fill):
  module, params = Mapper(), params_of(fill)
  adam = optimizers.scale_by_tf_adam(0.5, 0.999)
  state, codes = adam.init(params), VECTORS['data'][:64]
  latents = VECTORS['zs'][VECTORS[f'{fill}_nn_idx'][:64]]
  loss = lambda p: mapper.imle_loss(module.apply({'params': p}, latents), codes)
  gradient = jax.jit(jax.value_and_grad(loss))
  losses = []
  for _ in range(11):
    value, grads = gradient(params)
    losses.append(float(value))
    directions, state = adam.update(grads, state)
    params = jax.tree.map(lambda p, d: p - 1e-2 * d, params, directions)
  np.testing.assert_allclose(losses, VECTORS[f'{fill}_loss_traj_adam'], rtol=2e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), codes=st.integers(1, 20), samples=st.integers(1, 3000))
def test_nearest_samples_are_the_brute_force_ones(seed, codes, samples):
  rng = np.random.default_rng(seed)
  codes = rng.standard_normal((codes, 8)).astype(np.float32)
  samples = rng.standard_normal((samples, 8)).astype(np.float32)
  index = mapper.nearest_samples(jnp.asarray(codes), jnp.asarray(samples))
  exact = np.square(codes[:, None].astype(np.float64) - samples[None]).sum(-1)
  chosen = exact[np.arange(len(codes)), np.asarray(index)]
  np.testing.assert_allclose(chosen, exact.min(axis=1), rtol=1e-5, atol=1e-6)


def test_narrow_codes_far_from_the_origin_find_their_nearest_samples():
  rng = np.random.default_rng(0)
  codes, samples = (10 + 0.01 * rng.standard_normal((n, 8)).astype(np.float32) for n in (50, 500))
  index = mapper.nearest_samples(jnp.asarray(codes), jnp.asarray(samples))
  exact = np.square(codes[:, None].astype(np.float64) - samples[None]).sum(-1)
  np.testing.assert_array_equal(index, exact.argmin(axis=1))


def test_ties_of_samples_go_to_the_first():
  # On a small grid all sums are exact; there are more codes and samples than fit in one block.
  rng = np.random.default_rng(0)
  codes = rng.integers(0, 4, (5000, 2)).astype(np.float32)
  samples = rng.integers(0, 4, (1300, 2)).astype(np.float32)
  index = mapper.nearest_samples(jnp.asarray(codes), jnp.asarray(samples))
  exact = np.square(codes[:, None] - samples[None]).sum(-1)
  np.testing.assert_array_equal(index, exact.argmin(axis=1))


def test_pairs_are_kept_for_some_epochs():
  config = config_lib.load(config_lib.stage_file('mapper') + ':swatches')
  config.batch_size = 16
  method = mapper.make(config, num_codes=40)
  state = method.init(jax.random.key(0))
  frozen = {'codes': jax.random.normal(jax.random.key(1), (40, 8))}
  step = jax.jit(method.train_step)
  latents, losses = [], []
  for _ in range(11):
    state, metrics = step(state, {}, frozen)
    latents.append(np.asarray(state.stats['latents']))
    losses.append(float(metrics['imle']))
  assert latents[0].shape == (32, 8)  # An incomplete mini-batch is dropped.
  changed = [not np.array_equal(a, b) for a, b in zip(latents, latents[1:], strict=False)]
  assert changed == [False] * 4 + [True] + [False] * 4 + [True]
  assert losses[-1] < losses[0] and int(state.step) == 11


def test_fewer_codes_than_a_batch():
  config = config_lib.load(config_lib.stage_file('mapper') + ':swatches')
  method = mapper.make(config, num_codes=5)
  state, _ = method.train_step(method.init(jax.random.key(0)), {}, {'codes': jnp.ones((5, 8))})
  assert state.stats['latents'].shape == (5, 8)
