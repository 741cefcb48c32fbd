"""Benchmarks: the extraction of style codes, and the training step on random data."""

from collections.abc import Sequence

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax import methods, weights
from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.methods.superstylenet import sample_maps
from step_jax.methods.superstylenet.spse import extract, host, spline_table
from step_jax.models.features import read_raw_pixels
from step_jax.train import mesh as mesh_lib


def spse_cases(settings: Settings) -> Sequence[case.Case]:
  """Codes of a face-like and of a street-like map of 19 labels, on one device."""
  return [_spse_case(settings, name) for name in ('face', 'street')]


def _spse_case(settings: Settings, kind: str) -> case.Case:
  make = getattr(sample_maps, kind)
  images, labels = map(
    np.stack, zip(*(make(settings.size, i) for i in range(settings.batch)), strict=True)
  )
  table = spline_table()
  given = jax.device_put((images, labels, table))
  run = jax.jit(extract, static_argnums=2)
  compiled, program = case.compile_(run, *given[:2], sample_maps.NUM_LABELS, given[2])

  def variants() -> Sequence[case.Variant]:
    def work(calls):
      for _ in range(calls):
        for image, map_ in zip(images / 255, labels, strict=True):
          for label in range(sample_maps.NUM_LABELS):
            host.encode_region(image, map_ == label)

    return [case.Variant('numpy', lambda: work)]

  work = case.calling(compiled, *given)
  return case.Case(f'spse/{kind}', settings.batch, 'images', work, program, variants)


def step_case(settings: Settings) -> case.Case:
  """A training step over all devices, with 19 labels and random features."""
  arg = f'size={settings.size},features={settings.features}'
  config = config_lib.load(f'{config_lib.stage_file("superstylenet")}:{arg}')
  config.batch_size = settings.batch
  config.dtype = settings.dtype
  config.data.classes = sample_maps.NUM_LABELS
  config.model.generator_width = config.model.discriminator_width = settings.width
  mesh_lib.check_batch_size(config.batch_size)
  step = methods.abstract_step(config, config.data.crop)
  rng = np.random.default_rng(0)
  shapes = step.batch
  batch = {
    'image': rng.integers(0, 256, shapes['image'].shape, np.uint8),
    'labels': rng.integers(0, sample_maps.NUM_LABELS, shapes['labels'].shape, np.uint8),
    'codes': rng.random(shapes['codes'].shape, np.float32),
  }
  net = weights.load_features(config.features.net, config.features.taps, 'random')
  mesh = mesh_lib.make_mesh()
  shardings = mesh_lib.of_state(mesh, step.state, settings.fsdp)
  state = jax.jit(step.step.init, out_shardings=shardings)(jax.random.key(0))
  frozen = mesh_lib.put_replicated(mesh, {'features': read_raw_pixels(net.params)})
  inputs = mesh_lib.to_global(mesh, batch), frozen
  compiled, program = case.compile_(step.step.jitted_step(shardings), state, *inputs)
  work = case.training(compiled, state, *inputs)
  return case.Case(settings.name, config.batch_size, 'images', work, program)


def cases(settings: Settings) -> Sequence[case.Case]:
  """The cases of a benchmark."""
  return spse_cases(settings) if settings.name == 'spse' else [step_case(settings)]
