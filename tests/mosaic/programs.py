"""Programs of a run for export: the averaged generator with its running statistics."""

import jax.numpy as jnp

from mosaic import nets
from mosaic import run as run_lib
from step_jax.export import programs as programs_lib


def bundle(run):
  arrays = programs_lib.flatten({'generator': run.params['generator']})
  labels = run.config.model.num_labels
  generate = programs_lib.lower(
    lambda params, maps, colours, valid: run_lib.generate(
      run.config, params, maps, nets.Code(colours, valid)
    ),
    arrays,
    'generator',
    {
      'maps': ('b, h, w', jnp.uint8),
      'colours': (f'b, {labels}, 3', jnp.float32),
      'valid': (f'b, {labels}', jnp.float32),
    },
    'images',
    'images (RGB, 0..255) of label maps in given colours, -1..1',
  )
  usage = ('generate MAPS.npy COLOURS.npy VALID.npy OUT.npy',)
  return programs_lib.Bundle(arrays, {'generate': generate}, usage, 1, 1)
