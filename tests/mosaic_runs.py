"""Runs of the toy method `mosaic` for its tests."""

import contextlib

import jax
import mosaic
from mosaic import data
import numpy as np

from step_jax import config as config_lib
from step_jax import methods
from step_jax.train import mesh as mesh_lib
from step_jax.train import stage as stage_lib

FIELDS = {'data.crop': (16, 16), 'data.palette': 'index', 'data.classes': data.LABELS}
write_data = data.write


@contextlib.contextmanager
def registered():
  """Registers the method within a context, so that other tests do not see it."""
  tables = methods.METHODS, methods.STAGES, config_lib.FILES
  before = [dict(table) for table in tables]
  methods.register(mosaic.METHOD)
  try:
    yield
  finally:
    for table, content in zip(tables, before, strict=True):
      table.clear()
      table.update(content)


def make_config(folder, **fields):
  config = config_lib.load(config_lib.stage_file('mosaic'))
  config.update_from_flattened_dict({**FIELDS, 'data.path': str(folder), **fields})
  return config


def final(folder):
  """The latest `TrainState` of a stage."""
  config = config_lib.read(folder)
  like = methods.abstract_step(config, config.data.crop).state
  return stage_lib.load_newest(folder, like, mesh_lib.make_mesh())[1]


def same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)
