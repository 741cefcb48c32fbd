"""Benchmarks: training steps, inference and searches on random inputs on the device."""

from collections.abc import Mapping, Sequence
import functools

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax import methods, weights
from step_jax.bench import case, steps
from step_jax.bench.settings import Settings
from step_jax.methods.step import functions, networks, searches


def cases(settings: Settings) -> Sequence[case.Case]:
  """The cases of a benchmark."""
  if settings.name == 'inference':
    return inference_cases(settings)
  if settings.name == 'mining':
    return [searches.mining_case(settings)]
  if settings.name == 'imle':
    return [searches.imle_case(settings)]
  return [step_case(settings, settings.stage)]


def make_config(settings: Settings, stage: str) -> config_lib.ConfigDict:
  """The configuration of a stage with the sizes of a benchmark."""
  arg = f'size={settings.size},features={settings.features}'
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{arg}')
  config.batch_size = settings.batch
  config.dtype = settings.dtype
  config.features.weights = 'random'
  if 'init_from' in config:
    config.init_from = ''
  config.model.encoder_width = 2 * settings.width
  if 'generator_width' in config.model:
    config.model.generator_width = settings.width
    config.model.discriminator_width = settings.width
  return config


def random_batch(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
  """Random uint8 images of the given shapes."""
  rng = np.random.default_rng(0)
  return {role: rng.integers(0, 256, x.shape, np.uint8) for role, x in shapes.items()}


def load_frozen(config: config_lib.ConfigDict) -> dict:
  """Frozen parameters of a step: the feature network, for stages 2 and 3."""
  if config.stage == 'pretrain':
    return {}
  net = config.features
  return {'features': weights.load_features(net.net, net.taps, net.weights).params}


def step_case(settings: Settings, stage: str) -> case.Case:
  """A training step of a stage, on all devices as in training."""
  config = make_config(settings, stage)
  unit = 'triplets' if config.stage == 'pretrain' else 'images'
  variants = lambda state, *inputs: step_variants(settings, config, state.params, *inputs)
  return steps.step_case(settings, config, random_batch, load_frozen(config), variants, unit)


def step_variants(settings: Settings, config, params, frozen, batch) -> Sequence[case.Variant]:
  """A training step in PyTorch, from parameters and a batch on the host."""
  from step_jax.bench.ports import running
  from step_jax.methods.step.ports import steps as torch_steps

  step = torch_steps.STEPS[config.method]
  return running.variants(functools.partial(step, config, params, frozen, batch), settings)


def random_inputs(settings: Settings, stage: str) -> tuple[config_lib.ConfigDict, dict, dict, dict]:
  """Configuration, random parameters, frozen parameters and batch of a step, on the host."""
  config = make_config(settings, stage)
  step = methods.abstract_step(config, config.data.crop)
  rng = np.random.default_rng(0)
  draw = lambda x: rng.standard_normal(x.shape, np.float32)
  params = jax.tree.map(draw, step.state.params)
  return config, params, load_frozen(config), random_batch(step.batch)


def inference_cases(settings: Settings) -> Sequence[case.Case]:
  """Inference in given styles: encoder and generator together and separately; uint8 images."""
  config = make_config(settings, 'finetune')
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    'style_encoder': networks.init_style_encoder(encoder, keys[0]),
    'generator': networks.init_generator(generator, keys[1], config.model.z_dim),
  }
  shape = jax.ShapeDtypeStruct((config.batch_size, *config.data.crop, 3), np.uint8)
  batch = random_batch({'source': shape, 'target': shape})
  batch['z'] = np.asarray(jax.random.normal(keys[2], (config.batch_size, config.model.z_dim)))
  data = jax.device_put(batch)
  # Two programs, as in `run.Translator`.
  encode, encoding = case.compile_(
    jax.jit(functools.partial(functions.encode, encoder)), params, data['target']
  )
  generate, generating = case.compile_(
    jax.jit(functools.partial(functions.generate, generator)), params, data['source'], data['z']
  )
  translate = lambda: generate(params, data['source'], encode(params, data['target']))

  def make(name, program, function, *args):
    def variants():
      from step_jax.bench.ports import running
      from step_jax.methods.step.ports import steps as torch_steps

      port = functools.partial(torch_steps.Inference, config, jax.device_get(params), batch, name)
      return running.variants(port, settings)

    work = case.calling(function, *args)
    return case.Case(f'inference/{name}', config.batch_size, 'images', work, program, variants)

  return [
    make('translate', encoding.then(generating), translate),
    make('encode', encoding, encode, params, data['target']),
    make('generate', generating, generate, params, data['source'], data['z']),
  ]
