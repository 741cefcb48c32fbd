"""SuperStyleNet's training step against the original, and its invariants."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ssn_vectors
from test_ssn_networks import C, L, close, gradients_close

from step_jax import losses, models
from step_jax.methods.superstylenet import torch_state, training
from step_jax.methods.superstylenet.discriminator import Discriminator
from step_jax.methods.superstylenet.generator import Generator
from step_jax.models.features import read_raw_pixels
from step_jax.train import optimizers


def reference_trainer():
  weights = {'gan': 1.0, 'feature_matching': 10.0, 'perceptual': 0.0}
  return training.Trainer(
    training.Objectives(Generator(L, style_size=C, width=2), Discriminator(L, width=4), weights)
  )


@functools.cache
def reference_state():
  vectors = ssn_vectors.load('torch_step')
  params, stats = {}, {}
  for name, prefix in (('generator', 'G/p:'), ('discriminator', 'D/p:')):
    state = ssn_vectors.part(vectors, prefix)
    params[name], stats[name] = getattr(torch_state, name)(state)
  return vectors, reference_trainer().create(jax.tree.map(jnp.asarray, params), stats)


def test_losses_on_the_reference_maps():
  vectors = ssn_vectors.load('torch_disc')
  maps = [[vectors[f'train:{i}_{j}'] for j in range(4)] for i in range(2)]
  fake, real = ([[x[i : i + 2] for x in scale] for scale in maps] for i in (0, 2))
  on_fake, on_real = losses.hinge_discriminator_loss(fake, real)
  np.testing.assert_allclose(on_fake, vectors['D_fake'], rtol=1e-6)
  np.testing.assert_allclose(on_real, vectors['D_real'], rtol=1e-6)
  np.testing.assert_allclose(losses.hinge_generator_loss(fake), vectors['G_gan'], rtol=1e-5)
  matching = 10 * losses.feature_matching_loss(fake, real)
  np.testing.assert_allclose(matching, vectors['G_feat'], rtol=1e-6)


@functools.cache
def reference_run():
  """States after each step, the first gradients of the generator, and the losses of each step."""
  vectors, state = reference_state()
  batch = {'labels': vectors['label'], 'codes': vectors['codes'], 'image': vectors['real']}
  trainer = reference_trainer()

  @jax.jit
  def step(state, batch):
    to_generator, *_ = trainer.objectives.generator_gradients(
      state.params, state.stats, batch, None, {}
    )
    state, metrics = trainer.step_on(state, batch, (None, None), {})
    losses_ = [
      metrics['gan'],
      10 * metrics['feature_matching'],
      metrics['discriminator_fake'],
      metrics['discriminator_real'],
    ]
    return state, to_generator, jnp.stack(losses_)

  runs = []
  for _ in range(3):
    runs.append(step(state, batch))
    state = runs[-1][0]
  states, gradients, rows = zip(*runs, strict=True)
  return vectors, states, gradients[0], np.stack(rows)


def test_first_gradients_of_the_generator():
  vectors, _, gradients, _ = reference_run()
  gradients_close(gradients, torch_gradients(vectors, 'gradG:'))


def test_three_steps_match_the_original():
  vectors, states, _, rows = reference_run()
  np.testing.assert_allclose(rows[0], vectors['losses'][0], rtol=3e-6, atol=1e-6)
  np.testing.assert_allclose(rows, vectors['losses'], rtol=1e-3, atol=1e-4)
  state = states[-1]
  params = state.params
  after = ssn_vectors.part(vectors, 'after3:')
  conv = lambda name: after[name].transpose(2, 3, 1, 0)
  generator, discriminator = params['generator'], params['discriminator']
  spade = generator['up_3']['ace_0']['spade']['kernel']
  stats = state.stats['generator']
  norm = lambda block, ace: stats['batch_stats'][block][ace]['norm']
  for found, expected in (
    (generator['up_2']['conv_0']['kernel'], conv('G/up_2.conv_0.weight_orig')),
    (spade[..., : spade.shape[-1] // 2], conv('G/up_3.ace_0.Spade.mlp_gamma.weight')),
    (generator['up_1']['ace_0']['label_kernel'][1], after['G/up_1.ace_0.fc_mu1.weight'].T),
    (
      generator['head_0']['ace_0']['gsas_weight'],
      after['G/head_0.ace_0.Gsas.coefficient.weight'][0, 1, 0, 0],
    ),
    (generator['conv_img']['kernel'], conv('G/conv_img.weight')),
    (
      discriminator['scale_0']['conv_1']['kernel'],
      conv('D/discriminator_0.model1.0.0.weight_orig'),
    ),
    (discriminator['scale_1']['conv_3']['kernel'], conv('D/discriminator_1.model3.0.weight')),
    (norm('head_0', 'ace_0')['mean'], after['G/head_0.ace_0.param_free_norm.running_mean']),
    (norm('up_2', 'ace_1')['var'], after['G/up_2.ace_1.param_free_norm.running_var']),
    (stats['spectral']['up_2']['conv_0']['norm']['u'], after['G/up_2.conv_0.weight_u']),
  ):
    # Adam without a first moment moves entries by the sign of their gradient: a random walk where
    # the true gradient is zero, which later statistics include.
    difference = np.abs(np.asarray(found) - expected)
    assert difference.mean() < 1e-4 and difference.max() < 2.5e-3


def torch_gradients(vectors, prefix):
  """Gradients by our names; NaN where the file has none, as for some wide kernels.

  Zeros for the layer of a label without pixels in a small map, where PyTorch gives no gradient.
  """
  known = {'gradG:': ('G/p:', 'generator'), 'gradD:': ('D/p:', 'discriminator')}
  source, network = known[prefix]
  names = ssn_vectors.part(vectors, source).items()
  absent = {k: np.full_like(x, 0 if '.fc_mu' in k else np.nan) for k, x in names}
  state = absent | ssn_vectors.part(vectors, prefix)
  return getattr(torch_state, network)(state)[0]


def test_first_gradients_of_the_discriminator():
  """They are computed after the generator's update, on a new image."""
  vectors, states, *_ = reference_run()
  expected = torch_gradients(vectors, 'gradD:')
  # The second moment holds the squared gradient: nu = 0.1 g^2.
  squares = states[0].opt['discriminator'].nu['discriminator']
  for found, gradient in zip(jax.tree.leaves(squares), jax.tree.leaves(expected), strict=True):
    close(np.sqrt(10 * found), np.abs(gradient), 1e-4)


SMALL = training.Objectives(
  Generator(3, style_size=8, width=1, num_upsamplings=2, spade_width=4),
  Discriminator(3, width=2),
  training.WEIGHTS,
  models.VGG19(taps=('conv1_1',)),
  {'conv1_1': 1.0},
)


@functools.cache
def small_run(ema_decay):
  trainer = training.Trainer(SMALL, ema_decay=ema_decay)
  features = SMALL.features.init(jax.random.key(9), jnp.zeros((1, 16, 16, 3)))['params']
  random = np.random.default_rng(0)
  batch = {
    'image': random.integers(0, 255, (4, 16, 16, 3)).astype(np.uint8),
    'labels': random.integers(0, 3, (4, 16, 16)).astype(np.uint8),
    'codes': random.random((4, 3, 8), np.float32),
  }
  state = jax.jit(trainer.init)(jax.random.key(0))
  step = jax.jit(trainer.train_step)
  states = [state]
  for _ in range(2):
    state, metrics = step(state, batch, {'features': features})
    states.append(state)
  return trainer, states, metrics


def test_a_step_updates_everything():
  _, states, metrics = small_run(0.9)
  assert int(states[-1].step) == 2
  assert set(metrics) == {
    *('gan', 'feature_matching', 'perceptual', 'loss_generator'),
    *('discriminator_fake', 'discriminator_real', 'loss_discriminator'),
  }
  assert all(np.isfinite(x) for x in metrics.values())
  for name in ('generator', 'discriminator'):
    moved = jax.tree.map(
      lambda a, b: a.size == 1 or bool(np.any(a != b)),
      states[0].stats[name],
      states[1].stats[name],
    )
    assert all(jax.tree.leaves(moved)), moved


def test_noise_takes_part():
  """Noise scales start at zero and have a gradient only with noise."""
  _, states, _ = small_run(0.9)
  for block in states[1].params['generator'].values():
    for name, layer in block.items():
      assert not name.startswith('ace') or np.any(layer['noise_scale'])


def test_averages_follow_parameters_and_statistics():
  _, states, _ = small_run(0.9)
  found = training.trained_generator(states[1])
  # The old average has the weight 1 / 10 at the first step.
  for kind, live, old in (
    ('params', states[1].params['generator'], states[0].params['generator']),
    (
      'batch_stats',
      states[1].stats['generator']['batch_stats'],
      states[0].stats['generator']['batch_stats'],
    ),
  ):
    expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, live, old)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found[kind], expected
    )
  np.testing.assert_array_equal(
    jax.tree.leaves(found['spectral'])[0],
    jax.tree.leaves(states[1].stats['generator']['spectral'])[0],
  )


def test_without_averages_the_live_generator_is_used():
  state = jax.eval_shape(training.Trainer(SMALL).init, jax.random.key(0))
  assert not state.ema and training.AVERAGED not in state.stats
  assert training.trained_generator(state)['params'] is state.params['generator']


@pytest.mark.parametrize('b1', [0.0, 0.5])
def test_adam_is_pytorchs(b1):
  """theta -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)."""
  transform, b2 = optimizers.scale_by_torch_adam(b1, 0.9), 0.9
  state, m, v = transform.init(jnp.zeros(3)), 0.0, 0.0
  for t in range(1, 4):
    g = np.array([1e-8, 0.3, -2.0]) * t
    direction, state = transform.update(jnp.asarray(g, jnp.float32), state)
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    expected = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
    np.testing.assert_allclose(direction, expected, rtol=1e-5)


def test_feature_networks_can_read_raw_images():
  """The original uses images in [-1, 1] with a network trained on normalised images."""
  net = models.VGG19(taps=('conv1_1',))
  image = jax.random.uniform(jax.random.key(1), (1, 4, 4, 3), minval=-1)
  params = net.init(jax.random.key(0), image)['params']
  found = net.apply({'params': read_raw_pixels(params)}, image)['conv1_1']
  kernel = params['conv1_1']['kernel']
  conv = jax.lax.conv_general_dilated(
    image, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  np.testing.assert_allclose(found / models.features.PIXEL_STD, jax.nn.relu(conv), atol=1e-5)


def abstract_step(objectives):
  trainer = training.Trainer(objectives, ema_decay=0.999)
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  shape = jax.ShapeDtypeStruct
  features = jax.eval_shape(
    SMALL.features.init, jax.random.key(0), shape((1, 16, 16, 3), 'float32')
  )
  batch = {
    'image': shape((2, 16, 16, 3), jnp.uint8),
    'labels': shape((2, 16, 16), jnp.uint8),
    'codes': shape((2, 3, 8), jnp.float32),
  }
  return trainer.train_step, (state, batch, {'features': features['params']})


def test_step_lowers_for_accelerators():
  step, args = abstract_step(SMALL)
  exported = jax.export.export(jax.jit(step), platforms=['tpu', 'cuda'])(*args)
  assert set(exported.platforms) == {'tpu', 'cuda'}


def test_bfloat16_changes_no_type_of_the_state():
  half = lambda module: module.clone(dtype=jnp.bfloat16)
  modules = (half(getattr(SMALL, name)) for name in ('generator', 'discriminator', 'features'))
  names = ('generator', 'discriminator', 'features')
  step, args = abstract_step(dataclasses.replace(SMALL, **dict(zip(names, modules, strict=True))))
  state, metrics = jax.eval_shape(step, *args)
  types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert types(state) == types(args[0])
  assert all(x.dtype == jnp.float32 for x in metrics.values())
