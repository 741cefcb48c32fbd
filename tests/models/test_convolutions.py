"""Fast convolutions equal plain ones, forward and backward."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.models import convolutions, layers


def plain_upsampled(x, kernel):
  return convolutions.conv(layers.upscale(x), kernel)


def plain_downsampled(x, kernel):
  return layers.downscale(convolutions.conv(x, kernel))


def draw(seed, batch, height, width, inputs, outputs):
  keys = jax.random.split(jax.random.key(seed), 3)
  x = jax.random.normal(keys[0], (batch, height, width, inputs))
  kernel = jax.random.normal(keys[1], (3, 3, inputs, outputs)) / np.sqrt(9 * inputs)
  return x, kernel, keys[2]


def compare(fast, plain, x, kernel, key, tolerance=2e-5):
  y, pull = jax.vjp(plain, x, kernel)
  fast_y, fast_pull = jax.vjp(fast, x, kernel)
  cotangent = jax.random.normal(key, y.shape)
  for found, expected in zip((fast_y, *fast_pull(cotangent)), (y, *pull(cotangent)), strict=True):
    assert found.shape == expected.shape
    scale = float(jnp.abs(expected).max())
    assert float(jnp.abs(found - expected).max()) <= tolerance * scale


@settings(max_examples=4, deadline=None)
@given(
  seed=st.integers(0, 999),
  height=st.integers(1, 9),
  width=st.integers(1, 9),
  inputs=st.integers(1, 5),
  outputs=st.integers(1, 5),
)
def test_winograd_of_any_size(seed, height, width, inputs, outputs):
  x, kernel, key = draw(seed, 2, height, width, inputs, outputs)
  compare(convolutions.winograd_conv3x3, convolutions.conv, x, kernel, key)


@settings(max_examples=6, deadline=None)
@given(
  seed=st.integers(0, 999),
  height=st.integers(4, 11),
  width=st.integers(4, 11),
  size=st.integers(1, 4),
  stride=st.integers(1, 2),
  padding=st.sampled_from(['SAME', 'VALID', ((2, 0), (0, 1))]),
  strip=st.sampled_from([1, 100, 200]),
)
def test_kernel_gradient_by_strips(seed, height, width, size, stride, padding, strip):
  keys = jax.random.split(jax.random.key(seed), 3)
  x = jax.random.normal(keys[0], (2, height, width, 3))
  kernel = jax.random.normal(keys[1], (size, size, 3, 5))
  plain = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(stride,) * 2,
    padding=padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  by_strips = functools.partial(convolutions.conv, stride=stride, padding=padding)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(convolutions, '_STRIP', strip)
    compare(by_strips, plain, x, kernel, keys[2])


@settings(max_examples=4, deadline=None)
@given(
  seed=st.integers(0, 999),
  height=st.integers(1, 7),
  width=st.integers(1, 7),
  inputs=st.integers(1, 5),
)
def test_convolution_of_the_doubled_map(seed, height, width, inputs):
  x, kernel, key = draw(seed, 2, height, width, inputs, 4)
  compare(convolutions.upsampled_conv3x3, plain_upsampled, x, kernel, key)


@settings(max_examples=6, deadline=None)
@given(
  seed=st.integers(0, 999),
  height=st.integers(2, 9),
  width=st.integers(2, 9),
  inputs=st.integers(1, 5),
  strip=st.sampled_from([1, 2**18]),
)
def test_convolution_and_pooling_in_one(seed, height, width, inputs, strip):
  x, kernel, key = draw(seed, 2, height, width, inputs, 4)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(convolutions, '_STRIP', strip)
    compare(convolutions.downsampled_conv3x3, plain_downsampled, x, kernel, key)


def test_wide_convolutions():
  x, kernel, key = draw(0, 2, 8, 8, 200, 192)
  compare(convolutions.conv3x3, convolutions.conv, x, kernel, key)


def flops(function, *args):
  return jax.jit(function).lower(*args).compile().cost_analysis()['flops']


def test_what_is_saved():
  x, kernel, _ = draw(0, 2, 16, 16, 256, 256)
  plain = flops(convolutions.conv, x, kernel)
  assert flops(convolutions.winograd_conv3x3, x, kernel) < 0.6 * plain
  assert flops(convolutions.upsampled_conv3x3, x, kernel) < 0.5 * flops(plain_upsampled, x, kernel)
  pairs = [convolutions.downsampled_conv3x3, plain_downsampled]
  down, plain_down = (flops(function, x, kernel) for function in pairs)
  assert down < 0.5 * plain_down
  # Forward and both gradients.
  squared = lambda function: jax.grad(lambda *args: jnp.sum(function(*args) ** 2), argnums=(0, 1))
  down, plain_down = (flops(squared(function), x, kernel) for function in pairs)
  assert down < 0.5 * plain_down


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_accelerators_get_the_plain_convolution(platform):
  x, kernel, _ = draw(0, 1, 8, 8, 192, 192)
  grad = jax.grad(lambda x, k: jnp.sum(convolutions.conv3x3(x, k) ** 2), argnums=(0, 1))
  exported = jax.export.export(jax.jit(grad), platforms=[platform])(x, kernel)
  text = exported.mlir_module()
  assert 'stablehlo.convolution' in text and 'stablehlo.dot_general' not in text


def test_the_cpu_gets_winograd():
  x, kernel, _ = draw(0, 1, 8, 8, 192, 192)
  text = jax.jit(convolutions.conv3x3).lower(x, kernel).as_text()
  assert text.count('stablehlo.dot_general') == 16
  narrow = functools.partial(convolutions.conv3x3, x[..., :64])
  assert 'dot_general' not in jax.jit(narrow).lower(kernel[:, :, :64]).as_text()


def test_wide_convolutions_in_bfloat16():
  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (1, 4, 4, 192)).astype(jnp.bfloat16)
  kernel = jax.random.normal(keys[1], (3, 3, 192, 192)).astype(jnp.bfloat16)
  y = jax.jit(convolutions.conv3x3)(x, kernel)
  assert y.dtype == jnp.bfloat16
  exact = convolutions.conv(x.astype(jnp.float32), kernel.astype(jnp.float32))
  # Products are exact and sums are rounded once: half a unit in the eighth binary digit.
  worst = jnp.max(jnp.abs(y.astype(jnp.float32) - exact) / jnp.maximum(jnp.abs(exact), 1.0))
  assert worst < 2**-7
