"""Reconstruction scores: each protocol against NumPy, on images that reveal common mistakes.

Sources are grey, targets are not square, and styles are colours. The encoder returns the mean
colour and the generator paints it, so all scores are known in advance.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from step_jax import weights
from step_jax.evaluate import metrics
from step_jax.methods.step.scores import reconstruction

HEIGHT, WIDTH = 12, 20


class MeanColor(nn.Module):
  """A style encoder whose code is the mean colour in -1..1."""

  def __call__(self, pictures):
    z = pictures.mean(axis=(1, 2))
    return z, z, z


class Paint(nn.Module):
  """A generator that paints the left half with the style and keeps the right half."""

  def __call__(self, sources, z):
    left = jnp.arange(sources.shape[2]) < WIDTH // 2
    return jnp.where(left[None, None, :, None], z[:, None, None], sources)


def batch(count=3):
  colors = np.array([[10, 200, 30], [12, 100, 250], [255, 0, 128]], np.uint8)[:count]
  target = np.broadcast_to(colors[:, None, None], (count, HEIGHT, WIDTH, 3)).copy()
  target[:, :, WIDTH // 2 :] += 2  # 255 wraps to 1: the largest error.
  source = np.broadcast_to(np.uint8(target[:, :, -1:]), target.shape)
  return {'source': source, 'target': target}


def scored(pictures, mask=None):
  features = weights.load_features('squeezenet1_1', ['conv1', 'fire3'], 'random')
  params = {'style_encoder': {}, 'generator': {}}
  mask = np.ones(len(pictures['target'])) if mask is None else np.array(mask, np.float32)

  @jax.jit
  def score(pictures, feature_params):
    made = reconstruction.rebuild(MeanColor(), Paint(), params, pictures)
    weights = {'conv1': 0.5, 'fire3': 0.25}
    return made, reconstruction.score(features.module, weights, feature_params, made, mask)

  return jax.device_get(score(pictures, features.params))


def test_numbers_are_those_of_plain_numpy():
  pictures = batch()
  made, found = scored(pictures)
  target = pictures['target']
  assert made['own'].dtype == np.uint8 and made['own'].shape == target.shape
  np.testing.assert_array_equal(made['next'], target[[1, 2, 0]])
  np.testing.assert_allclose(made['z'], target.mean(axis=(1, 2)) / 127.5 - 1, atol=1e-5)
  for name, output in (('psnr', made['own']), ('psnr_other', made['other'])):
    error = output.astype(float) - target  # In uint8, 1 - 2 would be 255.
    np.testing.assert_allclose(
      found[name], 10 * np.log10(255**2 / np.mean(error**2, axis=(1, 2, 3))), rtol=1e-5
    )
  error = abs(made['own'].astype(float) - target).mean(axis=(1, 2, 3)) / 255
  np.testing.assert_allclose(found['l1'], error, rtol=1e-5)
  assert 0 < found['l1'].max() < 0.3
  # The code read back from half of the image is closer to the other style than the own code.
  assert (found['code_error'] > 0).all()
  assert (np.linalg.norm(made['z'] - made['z_other'], axis=1) > found['code_error']).all()


def test_perceptual_distance_is_of_pictures_in_the_range_of_the_loss():
  """Features of images in [-1, 1], as in training; 0..255 or 0..1 would give other values."""
  pictures = batch()
  made, found = scored(pictures)
  features = weights.load_features('squeezenet1_1', ['conv1', 'fire3'], 'random')
  taps = [
    features.module.apply({'params': features.params}, np.float32(x) / 127.5 - 1)
    for x in (made['own'], pictures['target'])
  ]
  expected = sum(
    weight * np.mean(np.square(0.1 * (taps[0][tap] - taps[1][tap])), axis=(1, 2, 3))
    for tap, weight in (('conv1', 0.5), ('fire3', 0.25))
  )
  np.testing.assert_allclose(found['perceptual'], expected, rtol=1e-4)


def test_a_single_image_has_no_other_style():
  _, found = scored(batch(), mask=[1, 0, 0])
  for name in ('psnr_other', 'content', 'content_photos', 'code_error'):
    assert np.isnan(found[name]).all()
  for name in ('psnr', 'ssim', 'l1', 'perceptual'):
    assert np.isfinite(found[name]).all()


def test_content_distance_is_zero_if_only_the_style_changes():
  random = np.random.RandomState(0)
  x = random.standard_normal((2, 6, 9, 4)).astype(np.float32)
  restyled = 3 * x + random.standard_normal(4).astype(np.float32)
  np.testing.assert_allclose(metrics.content_distance(x, restyled), 0, atol=1e-6)
  np.testing.assert_allclose(metrics.content_distance(x, -x), 4, rtol=1e-3)
  # Height and width differ: the same numbers transposed are other content.
  turned = x.reshape(2, 9, 6, 4).transpose(0, 2, 1, 3)
  assert (metrics.content_distance(x, turned) > 1).all()
