"""Losses of StyleGAN2 against PyTorch."""

import functools

import golden_vectors as golden
import jax
import numpy as np
import psp_vectors

from step_jax import losses
from step_jax.methods.psp import gan, stylegan2_state, torch_state
from step_jax.train import optimizers


def test_logistic_losses_average_and_lazy_adam():
  vectors = psp_vectors.load('09_gan_losses')
  loss = gan.discriminator_loss(vectors['real_pred'], vectors['fake_pred'])
  golden.assert_close(loss, vectors['d_logistic'])
  golden.assert_close(gan.generator_loss(vectors['fake_pred']), vectors['g_nonsat'])
  assert gan.EMA_DECAY == vectors['ema_beta']
  moved = optimizers.ema_update(vectors['ema_old'], vectors['ema_new'], gan.EMA_DECAY)
  golden.assert_close(moved, vectors['ema_out'], 1e-6)
  adam = gan.AdamSettings(0.002, 0.0, 0.99)
  np.testing.assert_allclose(gan.lazy(adam, 4), vectors['lazy_g'], rtol=1e-12)
  np.testing.assert_allclose(gan.lazy(adam, 16), vectors['lazy_d'], rtol=1e-12)


def test_r1_and_its_gradients():
  vectors = psp_vectors.load('07_discriminator_tiny')
  module, variables = stylegan2_state.discriminator_from_torch(psp_vectors.stored(vectors))
  images = vectors['x_nhwc'][:4]
  gradient = jax.jit(jax.grad(lambda x: module.apply(variables, x).sum()))(images)
  golden.assert_close(gradient, vectors['r1_grad_x_nhwc_first4'])

  def objective(variables):
    penalty = losses.r1_penalty(functools.partial(module.apply, variables), images)
    return 10 / 2 * 16 * penalty, penalty

  grads, penalty = jax.jit(jax.grad(objective, has_aux=True))(variables)
  golden.assert_close(penalty, vectors['r1_penalty_first4'])
  for key, found, convert in (
    ('convs.0.0.weight', grads['params']['from_rgb'], torch_state.conv),
    ('convs.1.conv2.1.weight', grads['params']['b32']['conv1'], torch_state.conv),
    ('final_linear.0.weight', grads['params']['fc'], torch_state.flattened(16)),
  ):
    golden.assert_close(found['kernel'], convert(vectors[f'r1_param_grad::{key}']))


def test_path_lengths_and_penalty():
  vectors = psp_vectors.load('04_generator_tiny')
  module, variables = stylegan2_state.generator_from_torch(psp_vectors.stored(vectors))
  synthesize = functools.partial(module.apply, variables, method='synthesize')
  noise = vectors['pl_noise_nhwc_unscaled']
  lengths = jax.jit(lambda w: gan.path_lengths(synthesize, w, noise))
  w_plus = vectors['lat_z1']
  gradient = jax.jit(jax.grad(lambda w: (synthesize(w) * noise).sum() / 32))(w_plus)
  golden.assert_close(gradient, vectors['pl_grad'])
  golden.assert_close(lengths(w_plus), vectors['pl_lengths'])
  penalty, mean = gan.path_penalty(lengths(w_plus), vectors['pl_mean_before'])
  golden.assert_close(mean, vectors['pl_mean_after'])
  golden.assert_close(penalty, vectors['pl_penalty'])


def test_the_penalty_moves_with_the_moved_mean():
  lengths = np.array([1.0, 3.0], np.float32)
  gradient = jax.grad(lambda x: gan.path_penalty(x, 0.5)[0])(lengths)
  mean = 0.5 + 0.01 * (2 - 0.5)
  through_mean = -2 * np.mean(lengths - mean) * 0.01 / 2
  np.testing.assert_allclose(gradient, lengths - mean + through_mean, rtol=1e-5)
