"""Loss terms against the original (`case4`, `case5`), and their invariants."""

import functools

import golden_vectors as golden
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import images, losses
from step_jax.models import VGG16

LOSSES = golden.load('case5_losses')
VGG = golden.load('case4_vgg_gram')
TAPS = ('conv1_2', 'conv2_2', 'conv3_2', 'conv4_2', 'conv5_2')
WEIGHTS = dict(zip(TAPS, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), strict=True))


@pytest.fixture(scope='module', params=['', 'he_'])
def vgg(request):
  params = golden.draw_vgg16(he=request.param == 'he_')
  net = VGG16(taps=TAPS)
  params = {name: layer for name, layer in params.items() if name != 'conv5_3'}
  # Weights are an argument: XLA would spend a minute folding them if they were constants.
  run = jax.jit(lambda params, x: net.apply({'params': params}, x))
  return request.param, functools.partial(run, params)


def test_lsgan():
  logits = [LOSSES[f'logits{i}'] for i in range(3)]
  golden.assert_close(losses.lsgan_loss(logits[0], losses.REAL), LOSSES['lsgan_real'])
  golden.assert_close(losses.lsgan_loss(logits[0], losses.FAKE), LOSSES['lsgan_fake'])
  golden.assert_close(losses.lsgan_loss(logits[0], 0.5), LOSSES['lsgan_E'])
  golden.assert_close(losses.lsgan_loss(logits, losses.REAL), LOSSES['ms_real'])
  golden.assert_close(losses.lsgan_loss(logits, losses.FAKE), LOSSES['ms_fake'])
  grad = jax.grad(losses.lsgan_loss)(jnp.asarray(logits[0]), losses.REAL)
  golden.assert_close(grad, LOSSES['g_lsgan_real'], 1e-3)


def test_forms_of_adversarial_losses_by_hand():
  logits = [jnp.array([[0.5, -2.0]]), jnp.array([[3.0]])]
  square, hinge = losses.ADVERSARIAL['least_squares'], losses.ADVERSARIAL['hinge']
  assert square.real(logits) == square.generator(logits) == (0.25 + 9.0) / 2 + 4.0
  assert square.fake(logits) == (0.25 + 4.0) / 2 + 9.0
  assert hinge.real(logits) == (0.5 + 3.0) / 2 + 0.0
  assert hinge.fake(logits) == (1.5 + 0.0) / 2 + 4.0
  assert hinge.generator(logits) == 0.75 - 3.0
  for form in (square, hinge):
    apart = jnp.array([form.certain]) / 2
    middle = 0.5 if form is square else 0.0
    assert form.real([middle + apart]) == form.fake([middle - apart]) == 0


def test_gan_terms_are_averaged_with_a_zero():
  terms = [jnp.float32(3.0), jnp.float32(6.0)]
  assert losses.average_with_zero(terms) == 3.0
  assert losses.average_with_zero([]) == 0.0


def test_losses_on_codes_and_pictures():
  mean, logvar = (LOSSES[name].reshape(4, 8) for name in ('mean', 'logvar'))
  value, grads = jax.value_and_grad(losses.kl_loss, argnums=(0, 1))(mean, logvar)
  golden.assert_close(value, LOSSES['kl'])
  golden.assert_close(grads[0], LOSSES['g_kl_mean'].reshape(4, 8), 1e-3)
  golden.assert_close(grads[1], LOSSES['g_kl_logvar'].reshape(4, 8), 1e-3)
  value, grad = jax.value_and_grad(losses.l2_loss)(mean)
  golden.assert_close(value, LOSSES['l2'])
  golden.assert_close(grad, LOSSES['g_l2'].reshape(4, 8), 1e-3)
  value, grad = jax.value_and_grad(losses.l1_loss)(LOSSES['img_a'], LOSSES['img_b'])
  golden.assert_close(value, LOSSES['l1'])
  golden.assert_close(grad, LOSSES['g_l1'], 1e-3)


@pytest.mark.parametrize('spread', ['spread', 'tight'])
def test_triplet_loss(spread):
  codes = [LOSSES[f'trip_{spread}_{role}'] for role in ('anc', 'pos', 'neg')]
  value, grads = jax.value_and_grad(losses.triplet_loss, argnums=(0, 1, 2))(*codes)
  golden.assert_close(value, LOSSES[f'trip_{spread}_triplet'])
  for grad, role in zip(grads, 'apn', strict=True):
    golden.assert_close(grad, LOSSES[f'trip_{spread}_gradtriplet_{role}'], 1e-3)
  total = lambda *c: losses.triplet_loss(*c) + 0.01 * sum(losses.l2_loss(z) for z in c)
  value, grads = jax.value_and_grad(total, argnums=(0, 1, 2))(*codes)
  golden.assert_close(value, LOSSES[f'trip_{spread}_total'])
  for grad, role in zip(grads, 'apn', strict=True):
    golden.assert_close(grad, LOSSES[f'trip_{spread}_grad_{role}'], 1e-3)


def test_perceptual_loss(vgg):
  prefix, net = vgg
  x, y = VGG['x'], VGG['y']
  for tap, features in net(x).items():
    crop = VGG[f'{prefix}act_{tap}_crop']
    golden.assert_close(features[:, : crop.shape[1], : crop.shape[2], :16], crop)
    assert list(features.shape) == list(VGG[f'{prefix}act_{tap}_shape'])
  golden.assert_close(net(x)['conv5_2'], VGG[f'{prefix}act_conv5_2'])

  def loss(x):
    return losses.perceptual_loss(net(x), net(y), WEIGHTS)

  value, grad = jax.value_and_grad(loss)(x)
  golden.assert_close(value, VGG[f'{prefix}perceptual_loss'])
  crop = VGG[f'{prefix}perceptual_gx_crop']
  golden.assert_close(grad[:, 24:32, 24:32], crop, 1e-3)
  norm = float(VGG[f'{prefix}perceptual_gx_norm'])
  assert abs(golden.norm(grad) - norm) < 1e-3 * norm
  for term, (tap, weight) in zip(VGG[f'{prefix}perceptual_terms'], WEIGHTS.items(), strict=True):
    golden.assert_close(losses.perceptual_loss(net(x), net(y), {tap: weight}), term)


def test_gram_matrices(vgg):
  prefix, net = vgg
  for tap, features in net(VGG['x']).items():
    gram = losses.gram_matrix(features)
    golden.assert_close(gram[:, :16, :16], VGG[f'{prefix}gram_{tap}_block'])
    norms = np.linalg.norm(np.asarray(gram, np.float64), axis=(1, 2))
    golden.assert_close(norms, VGG[f'{prefix}gram_{tap}_fro'])
    golden.assert_close(jnp.trace(gram, axis1=1, axis2=2), VGG[f'{prefix}gram_{tap}_trace'])
  golden.assert_close(losses.gram_matrix(net(VGG['x'])['conv2_2']), VGG[f'{prefix}gram_conv2_2'])


def test_style_distances(vgg):
  prefix, net = vgg
  targets = images.to_float(jnp.asarray(VGG['pw_images_uint8'][:, :, 64:]))
  golden.assert_close(targets[0], VGG['pw_gt_norm_img0'])
  grams = {tap: losses.gram_matrix(features) for tap, features in net(targets).items()}
  pairs = lambda grams: {tap: (g[:, None], g[None]) for tap, g in grams.items()}
  rows, columns = ({tap: g[i] for tap, g in pairs(grams).items()} for i in range(2))
  distance = losses.style_distance(rows, columns)
  golden.assert_close(distance, VGG[f'{prefix}pw_dist'])
  np.testing.assert_array_equal(np.argsort(distance, axis=1), VGG[f'{prefix}pw_argsort'])
  for tap, expected in zip(TAPS, VGG[f'{prefix}pw_dist_per_layer'], strict=True):
    golden.assert_close(losses.style_distance({tap: rows[tap]}, {tap: columns[tap]}), expected)
  # Squared differences of the packed form give the same distances.
  packed = losses.style_vector(grams)
  golden.assert_close(((packed[:, None] - packed[None]) ** 2).sum(-1), VGG[f'{prefix}pw_dist'])


@settings(max_examples=20, deadline=None)
@given(
  seed=st.integers(0, 10_000), taps=st.integers(1, 3), weights=st.sampled_from(losses.TAP_WEIGHTS)
)
def test_packed_style_is_an_isometry(seed, taps, weights):
  keys = jax.random.split(jax.random.key(seed), 2 * taps)
  grams = [
    {
      str(i): losses.gram_matrix(jax.random.normal(keys[2 * i + side], (2, 3, 4, 5 + i)))
      for i in range(taps)
    }
    for side in range(2)
  ]
  first, second = (losses.style_vector(gram, weights) for gram in grams)
  np.testing.assert_allclose(
    jnp.sum((first - second) ** 2, axis=-1), losses.style_distance(*grams, weights), rtol=1e-4
  )


def test_squared_channels_are_the_formula_of_gatys():
  """Up to a factor that is the same for all taps."""
  rng = np.random.default_rng(0)
  distances = []
  for channels in (4, 16):
    features = rng.normal(size=(2, 1, 3, 5, channels)).astype(np.float32)
    grams = [{'tap': losses.gram_matrix(feature)} for feature in features]
    flat = features.reshape(2, 15, channels)
    unnormalised = np.einsum('npi,npj->nij', flat, flat)
    expected = np.sum((unnormalised[0] - unnormalised[1]) ** 2) / (4 * channels**2 * 15**2)
    distances.append((losses.style_distance(*grams, 'squared_channels')[0], expected))
  (first, expected_first), (second, expected_second) = distances
  assert first / second == pytest.approx(expected_first / expected_second, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_style_vectors_ignore_positions(seed):
  features = jax.random.normal(jax.random.key(seed), (1, 4, 6, 5))
  shuffled = jax.random.permutation(jax.random.key(seed + 1), features.reshape(1, 24, 5), axis=1)
  golden.assert_close(
    losses.gram_matrix(shuffled.reshape(1, 6, 4, 5)), losses.gram_matrix(features), 1e-5
  )
