"""The step of stages 2 and 3 against the original, for all option sets of `case6`."""

import json

import golden_vectors as golden
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax.methods.step.original import step_tf
from step_jax.methods.step.original.step_tf import from_step_tf
from step_jax.methods.step.steps import translate
from step_jax.methods.step.steps.plan import Plan
from step_jax.models import VGG16, convolutions, layers
from step_jax.train import state as state_lib

CASES = sorted(path.stem for path in golden.FOLDER.glob('case6_*_A.npz'))
# Term or total of the original -> ours. The original logs z terms with their weights.
NAMES = {
  'loss_d': 'loss_discriminator',
  'loss_d2': 'loss_discriminator_2',
  'loss_g': 'loss_generator',
  'loss_g2': 'loss_latent',
  'loss_d_real': 'discriminator_real',
  'loss_d_fake': 'discriminator_fake',
  'loss_d2_real': 'discriminator_2_real',
  'loss_d2_fake': 'discriminator_2_fake',
  'loss_direct_recon': ('recon_perceptual', 'recon_l1'),
  'loss_cyclic_recon': ('cycle_perceptual', 'cycle_l1'),
  'loss_g_gan': 'gan',
  'loss_g2_gan': 'gan_latent',
  'loss_z_recon': 'z_recon',
  'loss_z_rand_recon': 'z_random_recon',
  'loss_z_kl': 'z_kl',
  'loss_z_l2': 'z_l2',
}
GRADIENTS = {
  'd1': ('discriminator', 'discriminator'),
  'd2': ('discriminator_2', 'discriminator_2'),
  'g1_G': ('generator', 'generator'),
  'g1_E': ('generator', 'style_encoder'),
  'g2_G': ('latent', 'generator'),
}


def config_of(flags: dict) -> ml_collections.ConfigDict:
  """Our configuration for flags of the original."""
  on = lambda name, default=False: float(flags.get(name, default))
  config = config_lib.load(config_lib.stage_file('translate'))
  config.train_encoder = bool(on('train_app_encoder'))
  config.model.variational = bool(on('use_vae'))
  kind, weight = ('perceptual', 0.02) if on('use_vgg_loss', True) else ('l1', 10.0)
  config.loss.update(recon_perceptual=0.0)
  config.loss[f'recon_{kind}'] = weight
  config.loss[f'cycle_{kind}'] = weight * on('loss_cyclic_recon')
  judged = 'd_random' if on('use_single_disc', True) else 'd2_random'
  config.loss.update(
    {
      'gan': on('loss_g_gan', True),
      'd_cycle': on('loss_D_cyclic'),
      'd_swap': on('loss_D_swap_z'),
      judged: on('loss_D_rand_z'),
      'z_kl': 0.01 * on('loss_z_kl'),
      'z_l2': 0.01 * on('loss_z_l2', True),
      'z_recon': 10 * on('loss_z_recon'),
      'z_random_recon': 10 * on('loss_z_rand_recon'),
    }
  )
  # The reference steps have a constant rate.
  config.schedule.fixed_kimg = config.schedule.total_kimg
  return config


def noise_of(vectors, plan: Plan):
  """The normal draws of the original, in order of use.

  Codes of both pairs, the drawn code, then codes read back from both swapped images.
  """
  draws = iter(vectors['eps'].reshape(-1, 2, 8) if 'eps' in vectors else ())
  noise = {'codes': np.zeros((2, 2, 8), np.float32), 'read_back': np.zeros((2, 2, 8), np.float32)}
  pairs = range(2 if plan.cycle else 1)
  if plan.variational:
    for pair in pairs:
      noise['codes'][pair] = next(draws)
  noise['random'] = next(draws) if plan.random else np.zeros((2, 8), np.float32)
  if plan.variational and plan.cycle:
    for pair in pairs:
      noise['read_back'][pair] = next(draws)
  assert not list(draws)
  return noise


VARIATIONAL = {'train_app_encoder': True, 'use_vae': True, 'loss_z_kl': True}
RANDOM = {'loss_D_rand_z': True, 'loss_z_rand_recon': True}
CYCLE = {'loss_cyclic_recon': True, 'loss_z_recon': True}


@pytest.mark.parametrize(
  ('flags', 'codes', 'random', 'read_back'),
  [
    ({}, [0, 0], 0, [0, 0]),
    (RANDOM, [0, 0], 1, [0, 0]),
    (RANDOM | CYCLE, [0, 0], 1, [0, 0]),
    (VARIATIONAL | RANDOM, [1, 0], 2, [0, 0]),
    (VARIATIONAL | CYCLE, [1, 2], 0, [3, 4]),
    (VARIATIONAL | CYCLE | RANDOM, [1, 2], 3, [4, 5]),
  ],
)
def test_draws_are_used_in_the_order_of_the_original(flags, codes, random, read_back):
  count = max(*codes, random, *read_back)
  eps = np.ones((count, 2, 1, 1, 8), np.float32) * np.arange(1, count + 1).reshape(-1, 1, 1, 1, 1)
  noise = noise_of({'eps': eps}, Plan.of(config_of(flags)))
  numbers = {name: values[..., 0, 0].tolist() for name, values in noise.items()}
  assert numbers == {'codes': codes, 'random': random, 'read_back': read_back}


def leaf(tree, variable):
  for part in step_tf.step_tf_path(variable)[1:]:
    tree = tree[part]
  return np.asarray(tree, np.float64)


@pytest.mark.parametrize('case', CASES)
def test_step_matches_the_original(case, monkeypatch):
  if 'staged' not in case:
    # Winograd convolutions dominate the compile time; two cases use them.
    monkeypatch.setattr(convolutions, '_WINOGRAD_CHANNELS', 10**9)
  vectors, pictures = golden.load(case), golden.load('case6_inputs')
  config = config_of(json.loads(str(vectors['flags'])))
  plan = Plan.of(config)
  vgg = golden.draw_vgg16(he=True)
  del vgg['conv5_3']
  objectives = translate.make_objectives(config, VGG16(taps=config.features.taps))
  optimizers = translate.make_optimizers(config, plan)
  variables = golden.draw_variables(vectors, 'A')
  drawn = from_step_tf(variables)
  networks = ('style_encoder', 'generator', *plan.discriminators)
  state = state_lib.create(
    {name: jax.tree.map(jnp.asarray, drawn[name]) for name in networks},
    optimizers,
    ('style_encoder', 'generator'),
  )
  names = {'source': 'xa', 'target': 'gta', 'source_b': 'xb', 'target_b': 'gtb'}
  batch = {ours: pictures[theirs] for ours, theirs in names.items()}
  frozen, noise = {'features': vgg}, noise_of(vectors, plan)

  # Large arrays are arguments: XLA would fold constants at compile time for minutes.
  @jax.jit
  def step(state, batch, frozen, noise):
    trained = optimizers['generator'].networks
    grads, metrics = objectives.gradients(state.params, trained, batch, frozen, noise)
    return state_lib.apply_gradients(state, optimizers, grads, config.ema_decay), grads, metrics

  after, grads, metrics = step(state, batch, frozen, noise)
  check_losses(vectors, metrics, plan)
  check_gradients(vectors, grads)
  check_averages(vectors, after, variables)
  for _ in range(2):
    after, _, _ = step(after, batch, frozen, noise)
  check_parameters(vectors, after, 'step3_norm')


def check_losses(vectors, metrics, plan):
  expected = dict(zip(vectors['loss_names'].tolist(), vectors['loss_before'], strict=True))
  for theirs, ours in NAMES.items():
    found = [name for name in (ours if isinstance(ours, tuple) else (ours,)) if name in metrics]
    if theirs == 'loss_g_gan' and not plan.on('gan'):
      continue  # The original logs this term even where it is unused.
    if not found:
      assert expected[theirs] == 0, theirs
      continue
    weighted = theirs.startswith('loss_z_') or 'recon' in theirs
    value = float(metrics[found[0]]) * (plan.weights[found[0]] if weighted else 1.0)
    np.testing.assert_allclose(value, expected[theirs], rtol=1e-3, err_msg=theirs)


def check_gradients(vectors, grads):
  for theirs, (objective, network) in GRADIENTS.items():
    if f'gradnames_{theirs}' not in vectors or network not in grads.get(objective, {}):
      continue
    tree = grads[objective][network]
    total = float(vectors[f'gradtotal_{theirs}'])
    found = np.sqrt(sum(golden.norm(x) ** 2 for x in jax.tree.leaves(tree)))
    np.testing.assert_allclose(found, total, rtol=1e-3, err_msg=theirs)
    norms = vectors[f'gradnorms_{theirs}']
    for name, norm in zip(vectors[f'gradnames_{theirs}'], norms, strict=True):
      # Biases before a norm have gradients of rounding error only. Where rounding moves one of a
      # few activations across the kink of a leaky ReLU, which differs between CPU models, single
      # gradients jump: up to 0.1 % of the total was seen.
      difference = abs(golden.norm(leaf(tree, str(name))) - norm)
      assert difference <= max(1e-3 * norm, 2e-3 * total), name


def check_averages(vectors, state, variables):
  """Moving averages after a step: start at the parameters, updated with the new ones."""
  for name, total in zip(vectors['ema_names'], vectors['ema_step1_sum'], strict=True):
    name = str(name)
    tree = state.ema[step_tf.step_tf_path(name)[0]]
    if name.endswith('bias'):
      continue  # Adam's first step is the gradient's sign, which is rounding for some biases.
    size = np.abs(variables[name]).sum()
    assert abs(leaf(tree, name).sum() - total) < 1e-5 * size, name


def check_parameters(vectors, state, key):
  for name, norm in zip(vectors['var_names'], vectors[key], strict=True):
    name = str(name)
    network = step_tf.step_tf_path(name)[0]
    if network in state.params and not name.endswith('bias'):
      np.testing.assert_allclose(
        golden.norm(leaf(state.params[network], name)), norm, rtol=5e-3, err_msg=name
      )


def small_step(**fields):
  """A configuration, its training step, and a batch of two pairs of 16 px."""
  config = config_lib.load(config_lib.stage_file('translate') + ':,size=16')
  config.model.update(encoder_width=4, generator_width=4, discriminator_width=4, num_scales=2)
  config.loss.update(recon_perceptual=0.0, recon_l1=10.0)
  config.update_from_flattened_dict(fields)
  keys = jax.random.split(jax.random.key(1))
  source, target = (jax.random.randint(key, (2, 16, 16, 3), 0, 255) for key in keys)
  pair = {'source': source.astype(jnp.uint8), 'target': target.astype(jnp.uint8)}
  return config, translate.make(config), pair


def test_a_frozen_encoder_does_not_change():
  _, method, pair = small_step()
  state = jax.jit(method.init)(jax.random.key(0))
  after, _ = jax.jit(method.train_step)(state, pair, {})
  same = jax.tree.map(np.array_equal, state.params['style_encoder'], after.params['style_encoder'])
  assert all(jax.tree.leaves(same))
  same = jax.tree.map(np.array_equal, state.ema['style_encoder'], after.ema['style_encoder'])
  assert all(jax.tree.leaves(same))
  moved = jax.tree.map(np.array_equal, state.params['generator'], after.params['generator'])
  assert not all(jax.tree.leaves(moved))
  assert set(after.opt) == {'generator', 'discriminator'}


def test_hinge_losses_train_both_networks():
  config, method, pair = small_step(**{'loss.adversarial': 'hinge'})
  state = jax.jit(method.init)(jax.random.key(0))
  objectives = translate.make_objectives(config)
  noise = translate.draw_noise(jax.random.key(0), 2, config.model.z_dim)
  step = jax.jit(lambda params: objectives.gradients(params, ('generator',), pair, {}, noise))
  grads, metrics = step(state.params)
  real, fake = metrics['discriminator_real'], metrics['discriminator_fake']
  source = objectives.read(pair, 'source')
  made = objectives.outputs(state.params, source, objectives.read(pair, 'target'), noise, {}).fakes[
    'direct'
  ]
  judge = lambda images: objectives.discriminator.apply(
    {'params': state.params['discriminator']}, images, source
  )
  # Terms are summed over scales; the only term counts half, as in the original.
  of = lambda scales, loss: sum(np.mean(loss(np.asarray(scale))) for scale in scales) / 2
  on_real, on_fake = judge(objectives.read(pair, 'target')), judge(made)
  np.testing.assert_allclose(real, of(on_real, lambda x: np.maximum(0, 1 - x)), rtol=1e-5)
  np.testing.assert_allclose(fake, of(on_fake, lambda x: np.maximum(0, 1 + x)), rtol=1e-5)
  np.testing.assert_allclose(metrics['gan'], of(on_fake, lambda x: -x), rtol=1e-5, atol=1e-6)
  assert np.any(jax.tree.leaves(grads['generator'])[0])


def test_r1_is_the_squared_gradient_at_real_images(monkeypatch):
  # Without kinks, for finite differences.
  monkeypatch.setattr(layers, 'leaky_relu', jax.nn.silu)
  config, method, pair = small_step(**{'loss.r1': 10.0})
  params = jax.jit(method.init)(jax.random.key(0)).params
  objectives = translate.make_objectives(config)
  source, target = (objectives.read(pair, role) for role in ('source', 'target'))
  own = params['discriminator']

  def score(images):
    scales = objectives.discriminator.apply({'params': own}, images, source)
    return sum(jnp.sum(jnp.mean(scale, axis=(1, 2, 3))) for scale in scales)

  penalty = jax.jit(lambda params: objectives.r1_penalty(params, source, target))
  gradient = jax.jit(jax.grad(score))(target)
  np.testing.assert_allclose(penalty(own), np.sum(np.square(gradient)) / 2, rtol=1e-5)
  along = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), own)
  moved = lambda step: penalty(jax.tree.map(lambda x, d: x + step * d, own, along))
  products = jax.tree.map(jnp.vdot, jax.jit(jax.grad(penalty))(own), along)
  slope = (moved(1e-3) - moved(-1e-3)) / 2e-3
  np.testing.assert_allclose(slope, sum(jax.tree.leaves(products)), rtol=0.01)

  noise = translate.draw_noise(jax.random.key(0), 2, config.model.z_dim)
  step = jax.jit(lambda params: objectives.gradients(params, ('generator',), pair, {}, noise))
  _, metrics = step(params)
  r1 = metrics['discriminator_r1']
  np.testing.assert_allclose(r1, penalty(own), rtol=1e-5)
  total = metrics['discriminator_real'] + metrics['discriminator_fake'] + 10 / 2 * r1
  np.testing.assert_allclose(metrics['loss_discriminator'], total, rtol=1e-6)


def test_spectral_norm_ignores_the_size_of_kernels():
  config, method, pair = small_step(**{'model.spectral_norm': True})
  params = jax.jit(method.init)(jax.random.key(0)).params
  objectives = translate.make_objectives(config)
  source, target = (objectives.read(pair, role) for role in ('source', 'target'))
  judge = lambda params: objectives.discriminator.apply({'params': params}, target, source)
  own = params['discriminator']
  larger = jax.tree.map(lambda x: 7 * x if x.ndim == 4 else x, own)
  for one, other in zip(judge(own), judge(larger), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  state, metrics = jax.jit(method.train_step)(jax.jit(method.init)(jax.random.key(0)), pair, {})
  assert np.isfinite(metrics['loss_discriminator'])
  assert not np.array_equal(
    state.params['discriminator']['scale0']['conv0']['kernel'], own['scale0']['conv0']['kernel']
  )


def test_bfloat16_computes_as_float32_does_but_for_rounding():
  """Parameters, losses and statistics stay float32; losses agree within a few percent."""
  metrics = {}
  for dtype in ('float32', 'bfloat16'):
    config = config_lib.load(config_lib.stage_file('translate') + ':,size=32')
    config.dtype = dtype
    config.train_encoder = True
    config.model.update(encoder_width=8, generator_width=8, discriminator_width=8)
    config.loss.update(recon_perceptual=0.0, recon_l1=10.0)
    method = translate.make(config)
    state = jax.jit(method.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1))
    batch = {
      role: jax.random.randint(key, (4, 32, 32, 3), 0, 256).astype(jnp.uint8)
      for role, key in zip(('source', 'target'), keys, strict=True)
    }
    after, metrics[dtype] = jax.jit(method.train_step)(state, batch, {})
    leaves = jax.tree.leaves((after.params, after.ema, metrics[dtype]))
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
  for name, value in metrics['float32'].items():
    # Gradients accumulate the rounding of every layer: 10 % was seen.
    rtol = 0.3 if name.startswith('grad_norm') else 0.05
    np.testing.assert_allclose(metrics['bfloat16'][name], value, rtol=rtol, err_msg=name)
