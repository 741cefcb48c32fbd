"""Benchmarks: the training steps of both stages on random images on the device."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax import methods
from step_jax.bench import case, steps
from step_jax.bench.settings import Settings
from step_jax.methods.psp.stages import psp


def cases(settings: Settings) -> Sequence[case.Case]:
  """The cases of a benchmark."""
  return [step_case(settings, settings.stage)]


def make_config(settings: Settings, stage: str) -> config_lib.ConfigDict:
  """The configuration of a stage with the sizes of a benchmark."""
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


def random_batch(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
  """Random uint8 images of the given shapes."""
  rng = np.random.default_rng(0)
  return {role: rng.integers(0, 256, x.shape, np.uint8) for role, x in shapes.items()}


def load_frozen(config: config_lib.ConfigDict) -> dict:
  """Frozen parameters of a step: the loss networks of pSp."""
  return psp.objectives(config)[1] if config.stage == 'psp' else {}


def period(config: config_lib.ConfigDict) -> int:
  """Number of steps between two steps with all terms."""
  return math.lcm(*config.interval.values()) if 'interval' in config else 1


def step_case(settings: Settings, stage: str) -> case.Case:
  """A training step of a stage, on all devices as in training; for StyleGAN2, a whole period.

  The compiler's counts of one step include all regularisers. They are not reported for a period,
  whose steps do not all have them.
  """
  config = make_config(settings, stage)
  variants = lambda state, *inputs: step_variants(settings, config, state.params, *inputs)
  one = steps.step_case(settings, config, random_batch, load_frozen(config), variants)
  count = period(config)
  if count == 1:
    return one
  return dataclasses.replace(
    one,
    items=count * one.items,
    work=lambda calls: one.work(count * calls),
    program=dataclasses.replace(one.program, flops=None, bytes_accessed=None),
  )


def step_variants(settings: Settings, config, params, frozen, batch) -> Sequence[case.Variant]:
  """The same step in PyTorch, from parameters and a batch on the host."""
  from step_jax.bench.ports import running
  from step_jax.methods.psp.ports import steps as torch_steps

  step = functools.partial(torch_steps.STEPS[config.stage], config, params, frozen, batch)
  return running.variants(step, settings, norms=False)


def random_inputs(settings: Settings, stage: str) -> tuple[config_lib.ConfigDict, dict, dict, dict]:
  """Configuration, random parameters, frozen parameters and batch of a step, on the host."""
  config = make_config(settings, stage)
  step = methods.abstract_step(config, config.data.crop)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), step.state.params)
  return config, params, load_frozen(config), random_batch(step.batch)
