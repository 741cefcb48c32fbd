"""Single layers against the original (`case7_layers`), and their invariants."""

import golden_vectors as golden
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.errors import DataError
from step_jax.models import features, layers

VECTORS = golden.load('case7_layers')
DRAWN = {fill: golden.draw_variables(VECTORS, fill) for fill in 'AB'}
FILLS = pytest.mark.parametrize('fill', 'AB')


def stored(fill, scope, **leaves):
  """Parameters `{ours: theirs}` of a scope."""
  return {ours: DRAWN[fill][f't/{scope}/{theirs}'] for ours, theirs in leaves.items()}


def conv_params(fill, scope):
  return stored(fill, scope, kernel='weight', bias='bias')


def apply(module, params, x):
  return jax.jit(module.apply)({'params': params}, x)


@FILLS
@pytest.mark.parametrize(
  ('scope', 'vector', 'options'),
  [
    ('c71', 'conv_k7s1_same', dict(kernel_size=7)),
    ('c32', 'conv_k3s2_same', dict(kernel_size=3, stride=2)),
    ('c42', 'conv_k4s2_same', dict(kernel_size=4, stride=2)),
    ('c41', 'conv_k4s1_same', dict(kernel_size=4)),
  ],
)
def test_convolutions(fill, scope, vector, options):
  y = apply(layers.Conv(8, **options), conv_params(fill, scope), VECTORS['x'])
  golden.assert_close(y, VECTORS[f'{fill}_{vector}'])


@FILLS
def test_dense_layer(fill):
  params = stored(fill, 't/FC/dense', kernel='kernel', bias='bias')
  y = apply(layers.Dense(8), params, layers.global_average(jnp.asarray(VECTORS['x'])))
  golden.assert_close(y.reshape(2, 1, 1, 8), VECTORS[f'{fill}_fullyconnected'])


def norm_params(fill, scope):
  return stored(fill, scope, gamma='gamma', beta='beta')


@FILLS
def test_norms(fill):
  x = VECTORS['x']
  instance = norm_params(fill, 't/in0/InstanceNorm')
  y = apply(layers.InstanceNorm(), instance, x)
  golden.assert_close(y, VECTORS[f'{fill}_instance_norm'])
  golden.assert_close(layers.pixel_norm(x), VECTORS[f'{fill}_pixel_norm'])


def block_params(fill, scope):
  return {
    'conv0': conv_params(fill, f'{scope}/bb_path1/bb_conv0'),
    'conv1': conv_params(fill, f'{scope}/bb_path1/bb_conv1'),
    'shortcut': conv_params(fill, f'{scope}/bb_path2/path2_conv'),
  }


@FILLS
def test_basic_block(fill):
  y = apply(layers.BasicBlock(20), block_params(fill, 'bb'), VECTORS['x'])
  golden.assert_close(y, VECTORS[f'{fill}_basicblock'])


@FILLS
def test_residual_block(fill):
  params = {}
  for i in range(2):
    params[f'conv{i}'] = conv_params(fill, f'rb/res{i}/res{i}_conv')
    params[f'norm{i}'] = norm_params(fill, f't/rb/res{i}/res{i}_norm/InstanceNorm')
  golden.assert_close(apply(layers.ResBlock(), params, VECTORS['x']), VECTORS[f'{fill}_resblock'])


def test_resizing_pooling_and_statistics():
  x, xb = jnp.asarray(VECTORS['x']), jnp.asarray(VECTORS['xb'])
  golden.assert_close(layers.downscale(x), VECTORS['A_downscale'])
  golden.assert_close(layers.upscale(x), VECTORS['A_upscale'])
  golden.assert_close(layers.global_average(x).reshape(2, 1, 1, 12), VECTORS['A_gap'])
  golden.assert_close(layers.minibatch_stddev(xb)[0], VECTORS['A_mbstat'])
  golden.assert_close(layers.minibatch_stddev(xb[:1])[0], VECTORS['A_mbstat_b1'])
  golden.assert_close(layers.concat_minibatch_stddev(xb), VECTORS['A_scalar_concat'])


def test_code_is_appended_to_every_pixel():
  joined = layers.concat_code(jnp.zeros((2, 3, 4, 5)), jnp.arange(16.0).reshape(2, 8))
  assert joined.shape == (2, 3, 4, 13)
  np.testing.assert_array_equal(joined[1, 2, 3, 5:], np.arange(8, 16))


def test_scales_of_kernels():
  for case, expected in zip(VECTORS['he_args'], VECTORS['he_vals'], strict=True):
    shape, slope = str(case).split('|')
    scale = layers.he_scale(tuple(map(int, shape.split(','))), float(slope))
    np.testing.assert_allclose(scale, expected, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(2, 9), width=st.integers(2, 9), seed=st.integers(0, 99))
def test_downscale_undoes_upscale(height, width, seed):
  x = jax.random.normal(jax.random.key(seed), (1, height, width, 2))
  np.testing.assert_allclose(layers.downscale(layers.upscale(x)), x, rtol=1e-6)
  assert layers.downscale(x).shape == (1, height // 2, width // 2, 2)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 100), shift=st.floats(-10, 10))
def test_instance_norm_forgets_contrast_and_brightness(scale, shift):
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  norm = layers.InstanceNorm()
  params = norm.init(jax.random.key(0), x)
  np.testing.assert_allclose(
    norm.apply(params, x), norm.apply(params, scale * x + shift), atol=2e-3
  )


def test_statistics_stay_in_float32_when_computing_in_bfloat16():
  x = (100 + jax.random.normal(jax.random.key(0), (1, 64, 64, 1))).astype(jnp.bfloat16)
  norm = layers.InstanceNorm()
  y = norm.apply(norm.init(jax.random.key(0), x), x)
  assert y.dtype == jnp.bfloat16
  # Summed in bfloat16, the mean would be off by more than the standard deviation.
  assert abs(float(y.astype(jnp.float32).mean())) < 0.05


def test_images_too_small_for_a_feature_network_are_one_clear_error():
  net = features.SqueezeNet11(('fire9',))
  init = lambda side: jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
  init(20)
  with pytest.raises(DataError, match='too small for the feature network, which pools a map of 1'):
    init(16)
