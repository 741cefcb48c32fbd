"""Training steps: lazy regularisation, order, statistics and lowering."""

import functools
import re

import flax.traverse_util
import jax
import jax.export
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from step_jax import config as config_lib
from step_jax import models
from step_jax.methods.psp import (
  augment,
  encoders,
  gan,
  generator,
  irse,
  presets,
  resnet,
  train_psp,
  train_stylegan2,
)

PLATFORMS = ['tpu', 'cuda']


def stylegan2_config(**fields):
  config = ml_collections.ConfigDict(
    {
      'data': {'crop': (8, 8)},
      'model': {
        'size': 0,
        'channel_multiplier': 1,
        'max_channels': 8,
        'style_dim': 8,
        'mapping_depth': 2,
      },
      'loss': {'r1': 10.0, 'path': 2.0},
      'interval': {'r1': 16, 'path': 4},
      'optimizer': {'learning_rate': 0.002, 'b1': 0.0, 'b2': 0.99, 'ema_decay': gan.EMA_DECAY},
      'style_mixing': 0.9,
      'path_shrink': 2,
      'augment': (),
      'seed': 0,
    }
  )
  config.update_from_flattened_dict(fields)
  return config


def pictures(count, size=8, channels=3):
  return np.random.RandomState(0).randint(0, 256, (count, size, size, channels), np.uint8)


@pytest.fixture
def float64():
  with jax.enable_x64(True):
    yield


def double(tree):
  widen = lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
  return jax.tree.map(widen, tree)


def test_lazy_steps_equal_separate_optimizer_calls(float64):
  """32 steps of the program against optax with one call per update."""
  config = stylegan2_config()
  method = train_stylegan2.make(config)
  objectives = train_stylegan2.make_objectives(config)
  state = double(method.init(jax.random.key(0)))
  real = jnp.asarray(pictures(4), jnp.float64) / 127.5 - 1

  params = dict(state.params)
  ema, w_mean, path_mean = state.params['generator'], state.stats['w_mean'], 0.0
  adam = {}
  for name, every in (('generator', 4), ('discriminator', 16)):
    c = every / (every + 1)
    adam[name] = optax.adam(0.002 * c, b1=0.0, b2=0.99**c, eps=1e-8)
  opt = {name: adam[name].init(params[name]) for name in adam}

  def apply(name, grads):
    moves, opt[name] = adam[name].update(grads, opt[name], params[name])
    params[name] = optax.apply_updates(params[name], moves)

  def d_loss(d, g, draws):
    w_plus, _ = objectives.styles(g, draws.discriminator)
    fake = objectives.synthesize(g, w_plus, draws.discriminator)
    return objectives.discriminator_loss(d, real, fake, draws.augment)

  d_step = jax.jit(jax.value_and_grad(d_loss, has_aux=True))
  r1_step = jax.jit(
    jax.value_and_grad(lambda d, draws: 10 / 2 * 16 * objectives.r1(d, real, draws.augment))
  )
  g_step = jax.jit(
    jax.value_and_grad(
      lambda g, d, draws: objectives.generator_loss(g, d, draws.generator, draws.augment),
      has_aux=True,
    )
  )

  def path_loss(g, draws, mean):
    penalty, found = objectives.path(g, draws.path, draws.pixels, mean)
    return 2 * 4 * penalty, found

  path_step = jax.jit(jax.value_and_grad(path_loss, has_aux=True))
  draw = jax.jit(functools.partial(objectives.draw, batch=4))
  train = method.jitted_step()
  last = {'r1': 0.0, 'path': 0.0}
  for step in range(32):
    key = jax.random.fold_in(jax.random.key(0), step)
    draws = draw(key)
    (loss_d, _), grads = d_step(params['discriminator'], params['generator'], draws)
    apply('discriminator', grads)
    if step % 16 == 0:
      value, grads = r1_step(params['discriminator'], draws)
      last['r1'] = value / 80
      apply('discriminator', grads)
    (loss_g, w), grads = g_step(params['generator'], params['discriminator'], draws)
    apply('generator', grads)
    if step % 4 == 0:
      (value, (path_mean, _)), grads = path_step(params['generator'], draws, path_mean)
      last['path'] = value / 8
      apply('generator', grads)
    w_mean = w_mean + max(0.005, 9 / (10 + step)) * (w - w_mean)
    ema = jax.tree.map(
      lambda e, p: gan.EMA_DECAY * e + (1 - gan.EMA_DECAY) * p, ema, params['generator']
    )
    state, metrics = train(state, {'image': real}, {})
    expected = {'loss_discriminator': loss_d, 'loss_generator': loss_g, **last}
    for name, value in expected.items():
      np.testing.assert_allclose(metrics[name], value, rtol=1e-6, atol=1e-6)
  assert int(state.step) == 32 and last['r1'] > 0
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
  jax.tree.map(close, state.params, params)
  jax.tree.map(close, state.ema['generator'], ema)
  close(state.stats['w_mean'], w_mean)
  close(state.stats['path_mean'], path_mean)


def test_lazy_terms_are_reported_in_each_step_and_exist_with_a_weight_alone():
  shapes = lambda config: jax.eval_shape(
    train_stylegan2.make(config).train_step,
    jax.eval_shape(train_stylegan2.make(config).init, jax.random.key(0)),
    {'image': jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8)},
    {},
  )
  _, metrics = shapes(stylegan2_config())
  always = {'loss_discriminator', 'loss_generator', 'logit_real', 'logit_fake'}
  assert metrics.keys() == {*always, 'r1', 'path', 'path_length'}
  state, metrics = shapes(stylegan2_config(**{'loss.r1': 0.0, 'loss.path': 0.0}))
  assert metrics.keys() == always and state.stats.keys() == {'noise', 'w_mean', 'last'}
  optimizers = train_stylegan2.make_optimizers(stylegan2_config(**{'loss.r1': 0.0}))
  assert optimizers['discriminator'].learning_rate(0) == 0.002
  assert optimizers['generator'].learning_rate(0) == pytest.approx(0.0016)


def lower(method, batch, frozen):
  state = jax.eval_shape(method.init, jax.random.key(0))
  shape = lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype)
  args = state, jax.tree.map(shape, batch), jax.tree.map(shape, frozen)
  found = jax.export.export(jax.jit(method.train_step), platforms=PLATFORMS)(*args)
  assert set(found.platforms) == set(PLATFORMS)


def test_stylegan2_lowers_for_accelerators():
  config = stylegan2_config(augment=('color', 'translation', 'cutout'))
  lower(train_stylegan2.make(config), {'image': pictures(4)}, {})


# Differentiable augmentation.


def test_lazy_terms_have_the_fast_convolutions_of_cpus():
  """XLA keeps other layouts in conditional branches, and is 10 to 60 times as slow with them."""
  config = stylegan2_config()
  step = train_stylegan2.make(config).jitted_step()
  state = jax.eval_shape(train_stylegan2.make(config).init, jax.random.key(0))
  batch = {'image': jax.ShapeDtypeStruct((4, 8, 8, 3), np.uint8)}
  compiled = step.lower(state, batch, {}).compile().as_text()
  layouts = re.findall(r'convolution\(.*dim_labels=([^\s,]+)', compiled)
  assert layouts and set(layouts) == {'b01f_01io->b01f'}


def test_augmentation():
  x = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3), minval=-1)
  run = lambda policy, seed=1: augment.augment(jax.random.key(seed), x, policy)
  np.testing.assert_array_equal(run(()), x)
  for policy in augment.POLICIES:
    y = run((policy,))
    assert y.shape == x.shape and not np.array_equal(y, x)
    np.testing.assert_array_equal(y, run((policy,)))
    assert not np.array_equal(y, run((policy,), 2))
  # A square of at most half the side, the same in all channels.
  hole = np.asarray(run(('cutout',)) == 0).all(axis=3)
  assert 0 < hole.sum(axis=(1, 2)).max() <= 64
  # Shifted images are crops of the originals with a border of zeros.
  moved = np.asarray(run(('translation',)))
  inner = moved[:, 2:-2, 2:-2]
  for image, part in zip(np.asarray(x), inner, strict=True):
    views = [image[i : i + 12, j : j + 12] for i in range(5) for j in range(5)]
    assert any(np.array_equal(view, part) for view in views)


# pSp.

SMALL = {'depths': (1, 1, 1, 1), 'widths': (16, 16, 32, 32), 'style_dim': 8}


def psp_config(preset='', **fields):
  config = config_lib.load(f'{config_lib.stage_file("psp")}:' + (preset and f',preset={preset}'))
  config.optimizer.learning_rate = 1e-3
  config.update_from_flattened_dict(fields)
  return config


def psp_objectives(config, pyramid=False):
  decoder = generator.Generator((8,) * 4, style_dim=8, mapping_depth=2)
  if config.model.encoder == 'resnet50_linear':
    encoder = encoders.ResNetLinearEncoder(config.model.num_styles or 8, size=64, style_dim=8)
  else:
    # The pyramid takes longest to compile.
    kind = encoders.GradualStyleEncoder if pyramid else encoders.IntoWPlusEncoder
    encoder = kind(8, size=64, **SMALL)
  taps = {'alexnet': ('conv1', 'conv2'), 'vgg16': ('conv1_2',)}[config.features.net]
  features = models.FEATURE_NETS[config.features.net](taps=taps)
  identity = irse.FaceEmbedding((1, 1, 1, 1), (16, 16, 16, 16))
  return train_psp.Objectives(config, encoder, decoder, features, identity, resnet.ResNet50())


def frozen_shapes(objectives):
  key = jax.random.key(0)
  picture = jnp.zeros((1, 64, 64, 3))
  heads = {'conv1': 64, 'conv2': 192, 'conv1_2': 64}
  shapes = lambda init, *args: jax.eval_shape(init, key, *args)
  return {
    'features': shapes(objectives.features.init, picture)['params'],
    'heads': {tap: jnp.ones(heads[tap]) for tap in objectives.features.taps},
    'identity': shapes(objectives.identity.init, jnp.zeros((1, 112, 112, 3))),
    'moco': shapes(functools.partial(objectives.moco.init, train=False), picture),
  }


def psp_batch(config, size=64):
  source = {
    'segmentation': np.zeros((2, size, size), np.int32),
    'sketch': pictures(2, size, 1),
  }.get(config.task, pictures(2, size))
  return {'source': source, 'target': pictures(2, size)}


def test_psp_steps_train_only_the_encoder():
  config = psp_config(**{'loss.lpips': 0.0, 'loss.w_norm': 0.005})
  objectives = psp_objectives(config)
  method = train_psp.make(objectives)
  state = method.init(jax.random.key(0))
  frozen = {}
  batch = psp_batch(config)
  before = jax.tree.map(np.asarray, (state.params, state.stats))
  step = method.jitted_step()
  found = []
  for _ in range(8):
    state, metrics = step(state, batch, frozen)
    found.append({name: float(value) for name, value in metrics.items()})
  assert found[0].keys() == {'loss', 'l2', 'w_norm'}
  for values in found:
    assert values['loss'] == pytest.approx(values['l2'] + 0.005 * values['w_norm'], rel=1e-5)
  assert found[-1]['loss'] < found[0]['loss']
  assert int(state.step) == 8
  # The encoder's batch norm and all of its parameters changed.
  after = flax.traverse_util.flatten_dict({'p': state.params, 's': state.stats})
  for path, old in flax.traverse_util.flatten_dict({'p': before[0], 's': before[1]}).items():
    if 'se' in path:  # Has one hidden channel, which may be dead.
      continue
    if 'encoder' not in path:  # The generator, its noise and its mean style are frozen.
      np.testing.assert_array_equal(after[path], old)
      continue
    assert not np.array_equal(after[path], old), path
  # Validation uses the running statistics and no noise.
  validate = jax.jit(
    lambda state, batch: objectives.loss(
      state.params, state.stats, batch, frozen, None, train=False
    )
  )
  total, (terms, moved) = validate(state, batch)
  assert terms.keys() == {'l2', 'w_norm'} and np.isfinite(total)
  jax.tree.map(np.testing.assert_array_equal, moved, state.stats['encoder'])


@pytest.mark.parametrize('preset', presets.PRESETS)
def test_presets_have_their_terms(preset):
  config = psp_config(preset)
  objectives = psp_objectives(config)
  method = train_psp.make(objectives)
  state = jax.eval_shape(method.init, jax.random.key(0))
  batch, frozen = psp_batch(config), frozen_shapes(objectives)
  new, metrics = jax.eval_shape(method.train_step, state, batch, frozen)
  terms = {name for name, weight in config.loss.items() if weight}
  assert metrics.keys() == {'loss', *terms}
  same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, new)
  assert all(jax.tree.leaves(same))


def test_psp_lowers_for_accelerators():
  terms = {f'loss.{name}': 1.0 for name in train_psp.TERMS if name != 'moco'}
  config = psp_config(train_generator=True, **terms)
  objectives = psp_objectives(config, pyramid=True)
  lower(train_psp.make(objectives), psp_batch(config), frozen_shapes(objectives))


def test_identities_can_be_a_difference_under_a_mask():
  config = psp_config('global')
  objectives = psp_objectives(config)
  batch = {**psp_batch(config), 'mask': pictures(2, 64, 1)}
  styles, output = jnp.zeros((2, 8, 8)), jnp.zeros((2, 32, 32, 3))
  config.loss.lpips = 0.0
  terms = objectives.terms(styles, output, None, 0.0, batch, {})
  assert terms.keys() == {'identity', 'l1'} and terms['identity'] > 0


def test_terms_without_a_network_are_one_clear_error():
  objectives = psp_objectives(psp_config())
  with pytest.raises(ValueError, match='loss.lpips needs a network'):
    train_psp.make(train_psp.Objectives(objectives.config, objectives.encoder, None))
  config = psp_config(**{'loss.identity': 1.0, 'loss.moco': 1.0})
  with pytest.raises(ValueError, match='exclude each other'):
    train_psp.make(psp_objectives(config))
