"""Programs for pods can be compiled for TPUs and GPUs, as far as this can be tested without one."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import pytest
import tiny

from step_jax import config as config_lib
from step_jax import methods, models
from step_jax.methods.step import functions, networks
from step_jax.methods.step.steps import mapper
from step_jax.models import inception

PLATFORMS = ['tpu', 'cuda']


def lower(function, *args):
  """Lowers a program; fails if an operation is not supported on a platform."""
  found = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*args)
  assert set(found.platforms) == set(PLATFORMS)


def shape(*sizes, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(sizes, dtype)


def config_of(stage, preset='', **fields):
  config = config_lib.load(
    f'{config_lib.stage_file(stage)}:' + (f'preset={preset}' if preset else '')
  )
  known = dict(config_lib.flatten(config))
  wanted = {**tiny.FIELDS, 'model.num_scales': 1, 'data.classes': 3, **fields}
  config.update_from_flattened_dict({k: v for k, v in wanted.items() if k in known})
  return config


@pytest.mark.parametrize(
  ('stage', 'preset', 'dtype'),
  [
    ('pretrain', '', 'float32'),
    ('finetune', '', 'bfloat16'),
    ('translate', 'munit_p_v1', 'float32'),
    ('superstylenet', '', 'float32'),
  ],
)
def test_training_steps(stage, preset, dtype):
  config = config_of(stage, preset, dtype=dtype)
  step = methods.abstract_step(config, (16, 16))
  lower(step.step.train_step, step.state, step.batch, step.frozen)


def test_wide_convolutions_and_their_gradients():
  """Operations with CPU-specific algorithms: Winograd, strips, pooling by slices."""
  net = models.FEATURE_NETS['vgg16'](taps=('conv3_2',))
  params = jax.eval_shape(net.init, jax.random.key(0), shape(1, 64, 64, 3))

  def loss(params, picture):
    return jnp.sum(net.apply(params, picture)['conv3_2'])

  lower(jax.grad(loss, argnums=(0, 1)), params, shape(4, 64, 64, 3))


def test_the_mapper_and_its_pairing():
  method = mapper.make(config_of('mapper'), num_codes=24)
  state = jax.eval_shape(method.init, jax.random.key(0))
  lower(method.train_step, state, {}, {'codes': shape(24, 8)})
  lower(mapper.nearest_samples, shape(3000, 8), shape(30000, 8))


def test_inference():
  config = config_of('finetune')
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  key = jax.random.key(0)
  params = jax.eval_shape(
    lambda: {
      'style_encoder': networks.init_style_encoder(encoder, key),
      'generator': networks.init_generator(generator, key, config.model.z_dim),
    }
  )
  pictures = shape(2, 20, 36, 3, dtype=jnp.uint8)
  lower(functools.partial(functions.encode, encoder), params, pictures)
  lower(functools.partial(functions.generate, generator), params, pictures, shape(2, 8))


@pytest.mark.parametrize('net', ['alexnet', 'squeezenet1_1'])
def test_feature_nets_of_scores(net):
  module = models.FEATURE_NETS[net](taps=models.FEATURE_NETS[net].PLAN[-1][:1])
  params = jax.eval_shape(module.init, jax.random.key(0), shape(1, 64, 64, 3))
  lower(module.apply, params, shape(2, 64, 64, 3))


def test_inception():
  module = inception.Inception()
  params = jax.eval_shape(module.init, jax.random.key(0), shape(1, 299, 299, 3))
  lower(module.apply, params, shape(2, 299, 299, 3))
