"""The steps of both stages on random images that lie on the device."""

from collections.abc import Sequence

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax import methods
from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.train import mesh as mesh_lib


def cases(settings: Settings) -> Sequence[case.Case]:
  """What a benchmark measures."""
  return [step_case(settings, settings.stage)]


def make_config(settings: Settings, stage: str) -> config_lib.ConfigDict:
  """The configuration of a stage at the size of a bench."""
  config = config_lib.load(f'{config_lib.stage_file(stage)}:size={settings.size}')
  config.batch_size = settings.batch
  config.features.weights = 'random'
  config.model.max_channels = 4 * settings.width
  config.model.style_dim = 4 * settings.width
  if stage == 'psp':
    config.init_from = ''
    config.model.encoder_size = max(64, settings.size)
    config.model.body_width = settings.width
  return config


def step_case(settings: Settings, stage: str) -> case.Case:
  """A training step of a stage, over all devices as in training.

  Regularisers are part of it in those steps alone in which they are computed.
  """
  config = make_config(settings, stage)
  mesh_lib.check_batch_size(config.batch_size)
  step = methods.abstract_step(config, config.data.crop)
  rng = np.random.default_rng(0)
  batch = {role: rng.integers(0, 256, x.shape, np.uint8) for role, x in step.batch.items()}
  draw = lambda x: rng.standard_normal(x.shape, np.float32)
  frozen = jax.tree.map(draw, dict(step.frozen))
  mesh = mesh_lib.make_mesh()
  shardings = mesh_lib.of_state(mesh, step.state, settings.fsdp)
  state = jax.jit(step.step.init, out_shardings=shardings)(jax.random.key(0))
  inputs = mesh_lib.to_global(mesh, batch), mesh_lib.put_replicated(mesh, frozen)
  compiled, program = case.compile_(step.step.jitted_step(shardings), state, *inputs)
  work = case.training(compiled, state, *inputs)
  return case.Case(settings.name, config.batch_size, 'images', work, program)
