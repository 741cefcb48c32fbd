"""Runs that are as small as can be, and a record of the fields that code reads from them."""

import contextlib
import pathlib

from ml_collections import ConfigDict
import pytest

from step_jax import config as config_lib
from step_jax import stages
from step_jax.config import STAGES

__all__ = ['FIELDS', 'STAGES', 'make_config', 'record_fields', 'train']

FIELDS = {
  'batch_size': 4,
  'data.crop': (16, 16),
  'features.weights': 'random',
  'features.net': 'squeezenet1_1',
  'features.taps': ('conv1',),
  'features.tap_weights': (1.0,),
  'model.encoder_width': 4,
  'model.generator_width': 4,
  'model.discriminator_width': 4,
  'model.num_scales': 2,
  'schedule.fixed_kimg': 0.016,
  'schedule.total_kimg': 0.024,
  'schedule.epochs': 6,
  'every.log': 2,
  'every.checkpoint': 3,
  'every.evaluate': 6,
}


def make_config(stage: str, folder: pathlib.Path, **fields) -> ConfigDict:
  config = config_lib.load(config_lib.stage_file(stage))
  known = dict(config_lib.flatten(config))
  wanted = {**FIELDS, 'data.path': str(folder), **fields}
  config.update_from_flattened_dict({k: v for k, v in wanted.items() if k in known})
  return config


def train(stage: str, folder: pathlib.Path, workdir: pathlib.Path, **fields) -> pathlib.Path:
  return stages.train(make_config(stage, folder, **fields), workdir)


@contextlib.contextmanager
def record_fields():
  """Yields a dict that fills with `stage -> fields read`, but for checking and saving them."""
  read: dict[str, set[str]] = {}
  paths: dict[int, tuple[str, str]] = {}
  kept = []  # Configurations must live on, or another object may get their id.
  get = ConfigDict.__getitem__

  def recorded(self, key):
    value = get(self, key)
    stage, prefix = paths.get(id(self), ('', ''))
    if not prefix and 'stage' in self.keys():
      stage = get(self, 'stage')
    if isinstance(value, ConfigDict):
      paths[id(value)] = stage, f'{prefix}{key}.'
      kept.append(value)
    elif stage:
      read.setdefault(stage, set()).add(prefix + str(key))
    return value

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(config_lib, 'validate', lambda config: None)
    patch.setattr(ConfigDict, '__getitem__', recorded)
    yield read
