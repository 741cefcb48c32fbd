"""Benchmarks: the extraction of style codes, and the training step on random data."""

from collections.abc import Mapping, Sequence
import functools

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax import methods, weights
from step_jax.bench import case, steps
from step_jax.bench.settings import Settings
from step_jax.methods.superstylenet import sample_maps
from step_jax.methods.superstylenet.spse import extract, host, spline_table
from step_jax.models.features import read_raw_pixels


def spse_cases(settings: Settings) -> Sequence[case.Case]:
  """Extraction of codes for a face-like and a street-like map of 19 labels, on one device."""
  return [_spse_case(settings, name) for name in ('face', 'street')]


def _spse_case(settings: Settings, kind: str) -> case.Case:
  make = getattr(sample_maps, kind)
  images, labels = map(
    np.stack, zip(*(make(settings.size, i) for i in range(settings.batch)), strict=True)
  )
  table = spline_table()
  arrays = jax.device_put((images, labels, table))
  run = jax.jit(extract, static_argnums=2)
  compiled, program = case.compile_(run, *arrays[:2], sample_maps.NUM_LABELS, arrays[2])

  def variants() -> Sequence[case.Variant]:
    def work(calls):
      for _ in range(calls):
        for image, map_ in zip(images / 255, labels, strict=True):
          for label in range(sample_maps.NUM_LABELS):
            host.encode_region(image, map_ == label)

    return [case.Variant('numpy', lambda: work)]

  work = case.calling(compiled, *arrays)
  return case.Case(f'spse/{kind}', settings.batch, 'images', work, program, variants)


def step_case(settings: Settings, stage: str) -> case.Case:
  """A training step on all devices, with 19 labels and random features."""
  config = make_config(settings, stage)
  variants = lambda state, *inputs: step_variants(
    settings, config, (state.params, state.stats), *inputs
  )
  return steps.step_case(settings, config, random_batch, load_frozen(config), variants)


def make_config(settings: Settings, stage: str) -> config_lib.ConfigDict:
  """The configuration of the stage with the sizes of a benchmark."""
  arg = f'size={settings.size},features={settings.features}'
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{arg}')
  config.batch_size = settings.batch
  config.dtype = settings.dtype
  config.data.classes = sample_maps.NUM_LABELS
  config.model.generator_width = config.model.discriminator_width = settings.width
  return config


def random_batch(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
  """Random images, label maps and codes of the given shapes."""
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, shapes['image'].shape, np.uint8),
    'labels': rng.integers(0, sample_maps.NUM_LABELS, shapes['labels'].shape, np.uint8),
    'codes': rng.random(shapes['codes'].shape, np.float32),
  }


def load_frozen(config: config_lib.ConfigDict) -> dict:
  """Frozen parameters of a step: random ones of the feature network."""
  net = weights.load_features(config.features.net, config.features.taps, 'random')
  return {'features': read_raw_pixels(net.params)}


def step_variants(settings: Settings, config, variables, frozen, batch) -> Sequence[case.Variant]:
  """A training step in PyTorch, from parameters, statistics and a batch on the host."""
  from step_jax.bench.ports import running
  from step_jax.methods.superstylenet.ports.steps import Step

  return running.variants(functools.partial(Step, config, variables, frozen, batch), settings)


def random_inputs(
  settings: Settings, stage: str
) -> tuple[config_lib.ConfigDict, tuple, dict, dict]:
  """Configuration, random variables, frozen parameters and batch of a step, on the host."""
  config = make_config(settings, stage)
  step = methods.abstract_step(config, config.data.crop)
  rng = np.random.default_rng(0)
  draw = lambda x: rng.standard_normal(x.shape, np.float32)
  variables = jax.tree.map(draw, (step.state.params, step.state.stats))
  return config, variables, load_frozen(config), random_batch(step.batch)


def cases(settings: Settings) -> Sequence[case.Case]:
  """The cases of a benchmark."""
  if settings.name == 'spse':
    return spse_cases(settings)
  return [step_case(settings, settings.stage)]
