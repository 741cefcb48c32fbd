"""Inception of FID against the same network in PyTorch, and its pooling at the border."""

import zlib

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.models import inception
from step_jax.models.inception import Inception

PICTURES = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
# Parameters here -> in PyTorch, and the scale of the normal distribution they are drawn from.
LEAVES = {
  'conv/kernel': ('conv.weight', lambda draw: draw * np.sqrt(2 / np.prod(draw.shape[1:]))),
  'bn/scale': ('bn.weight', lambda draw: 1 + 0.1 * draw),
  'bn/bias': ('bn.bias', lambda draw: 0.1 * draw),
  'bn/mean': ('bn.running_mean', lambda draw: 0.1 * draw),
  'bn/var': ('bn.running_var', lambda draw: np.exp(0.3 * draw)),
}
# Mean and standard deviation of the 2048 features of one image, and some of the features: the
# network of pytorch-fid in layers of PyTorch 2.13, in float64.
PLACES = [1, 319, 320, 500, 1088, 1500, 1855, 1856, 2047]
PYTORCH = {
  inception.TENSORFLOW_CENTER: (
    *(1.4956871, 1.9235962),
    [1.595159, 0.151109, 0.152208, 4.391754, 0.0, 3.898263, 4.762043, 0.525593, 4.456038],
  ),
  inception.PYTORCH_FID_CENTER: (
    *(1.5022552, 1.9320613),
    [1.603231, 0.152245, 0.153452, 4.411484, 0.0, 3.911580, 4.778467, 0.530591, 4.480632],
  ),
}


def draw(path, shape):
  """A random parameter for its PyTorch name, with PyTorch's axes."""
  *unit, kind, leaf = path
  name, scale = LEAVES[f'{kind}/{leaf}']
  random = np.random.RandomState(zlib.crc32('.'.join([*unit, name]).encode()))
  if leaf != 'kernel':
    return scale(random.standard_normal(shape)).astype(np.float32)
  height, width, inputs, outputs = shape
  value = scale(random.standard_normal((outputs, inputs, height, width)))
  return value.transpose(2, 3, 1, 0).astype(np.float32)


def test_features_match_pytorch():
  shapes = jax.eval_shape(Inception().init, jax.random.key(0), PICTURES)['params']
  flat = flax.traverse_util.flatten_dict(shapes)
  params = flax.traverse_util.unflatten_dict({k: draw(k, flat[k].shape) for k in flat})
  picture = np.random.RandomState(1).randint(0, 256, (1, 299, 299, 3))
  # One compiled program for both centres.
  run = jax.jit(lambda center, params, x: Inception(center).apply({'params': params}, x))
  for center, (mean, deviation, some) in PYTORCH.items():
    features = run(center, params, picture)
    assert features.shape == (1, inception.FEATURES) and features.dtype == jnp.float32
    np.testing.assert_allclose(features[0, jnp.array(PLACES)], some, atol=2e-5)
    np.testing.assert_allclose([features.mean(), features.std()], [mean, deviation], rtol=1e-5)


@pytest.mark.parametrize('shape', [(1, 256, 256, 3), (1, 3, 299, 299), (299, 299, 3)])
def test_other_sizes_are_refused(shape):
  with pytest.raises(ValueError, match=r'takes \[B, 299, 299, 3\].*resize'):
    jax.eval_shape(Inception().init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_mean_pools_count_no_padding():
  x = np.random.RandomState(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
  found = inception._average_pool(x)
  for i in range(5):
    for j in range(4):
      window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
      np.testing.assert_allclose(found[:, i, j], window.mean(axis=(1, 2)), atol=1e-6)
