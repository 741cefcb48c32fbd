"""Benchmark of the training step, on random images on the device."""

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax import methods
from step_jax.bench import case
from step_jax.train import mesh as mesh_lib


def make_config(settings, stage):
  config = config_lib.load(f'{config_lib.stage_file(stage)}:size={settings.size}')
  config.batch_size = settings.batch
  config.model.width = settings.width
  return config


def step_case(settings, stage):
  config = make_config(settings, stage)
  step = methods.abstract_step(config, config.data.crop)
  rng = np.random.default_rng(0)
  batch = {
    role: rng.integers(0, config.model.num_labels, x.shape, np.uint8)
    for role, x in step.batch.items()
  }
  mesh = mesh_lib.make_mesh()
  state = jax.jit(step.step.init)(jax.random.key(0))
  inputs = mesh_lib.to_global(mesh, batch), {}
  compiled, program = case.compile_(step.step.jitted_step(), state, *inputs)
  work = case.training(compiled, state, *inputs)
  return case.Case(settings.name, config.batch_size, 'images', work, program)


def cases(settings):
  return [step_case(settings, settings.stage)]
