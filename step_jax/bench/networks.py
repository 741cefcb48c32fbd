"""The steps of the first three stages, and inference, on random pictures that lie on the device."""

from collections.abc import Mapping, Sequence
import functools

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax import weights
from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.infer import functions
from step_jax.methods import networks
from step_jax.methods.abstract import abstract_step


def make_config(settings: Settings, stage: str) -> config_lib.ConfigDict:
  """The configuration of a stage at the size of a bench."""
  arg = f'size={settings.size},features={settings.features}'
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{arg}')
  config.batch_size = settings.batch
  config.dtype = settings.dtype
  config.features.weights = 'random'
  config.init_from = ''
  config.model.encoder_width = 2 * settings.width
  if 'generator_width' in config.model:
    config.model.generator_width = settings.width
    config.model.discriminator_width = settings.width
  return config


def random_batch(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
  """Random pictures, uint8 of those shapes."""
  rng = np.random.default_rng(0)
  return {role: rng.integers(0, 256, x.shape, np.uint8) for role, x in shapes.items()}


def load_frozen(config: config_lib.ConfigDict) -> dict:
  """What a step reads besides its batch: parameters of the feature net, for stages 2 and 3."""
  if config.method == 'pretrain':
    return {}
  net = config.features
  return {'features': weights.load_features(net.net, net.taps, net.weights).params}


def step_case(settings: Settings, stage: str) -> case.Case:
  """A training step of a stage."""
  config = make_config(settings, stage)
  step = abstract_step(config, config.data.crop)
  batch, frozen = random_batch(step.batch), load_frozen(config)
  state = jax.jit(step.method.init)(jax.random.key(0))
  params = jax.device_get(state.params)
  on_device = jax.device_put((batch, frozen))
  compiled, program = case.compile_(step.method.jitted_step(), state, *on_device)

  def variants():
    from step_jax.bench import torch_steps

    return torch_steps.variants(
      functools.partial(torch_steps.STEPS[config.method], config, params, frozen, batch), settings
    )

  unit = 'triplets' if config.method == 'pretrain' else 'pictures'
  work = case.training(compiled, state, *on_device)
  return case.Case(settings.name, config.batch_size, unit, work, program, variants)


def inference_cases(settings: Settings) -> Sequence[case.Case]:
  """Translating in given styles: encoder and generator, and each alone; uint8 in and out."""
  config = make_config(settings, 'finetune')
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    'style_encoder': networks.init_style_encoder(encoder, keys[0]),
    'generator': networks.init_generator(generator, keys[1], config.model.z_dim),
  }
  size = (config.batch_size, *config.data.crop, 3)
  shape = jax.ShapeDtypeStruct(size, np.uint8)
  batch = random_batch({'source': shape, 'target': shape})
  batch['z'] = np.asarray(jax.random.normal(keys[2], (config.batch_size, config.model.z_dim)))

  def translate(params, batch):
    z = functions.encode(encoder, params, batch['target'])
    return functions.generate(generator, params, batch['source'], z)

  programs = {
    'translate': translate,
    'encode': lambda params, batch: functions.encode(encoder, params, batch['target']),
    'generate': lambda params, batch: functions.generate(
      generator, params, batch['source'], batch['z']
    ),
  }

  def make(name, function):
    on_device = jax.device_put((params, batch))
    compiled, program = case.compile_(jax.jit(function), *on_device)

    def variants():
      from step_jax.bench import torch_steps

      return torch_steps.variants(
        functools.partial(torch_steps.Inference, config, jax.device_get(params), batch, name),
        settings,
      )

    work = case.calling(compiled, *on_device)
    return case.Case(f'inference/{name}', config.batch_size, 'pictures', work, program, variants)

  return [make(name, function) for name, function in programs.items()]
