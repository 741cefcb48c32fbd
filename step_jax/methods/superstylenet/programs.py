"""Programs of a SuperStyleNet run for export."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import ml_collections

from step_jax import images
from step_jax.export import programs as programs_lib
from step_jax.methods import exported
from step_jax.methods.superstylenet import codes as codes_lib
from step_jax.methods.superstylenet import extraction, networks
from step_jax.methods.superstylenet import run as run_lib
from step_jax.methods.superstylenet.run import RegionRun
from step_jax.methods.superstylenet.spse import CODE_SIZE, extract, spline_table

_USAGE = ('encode IMAGE.npy MAP.npy CODES.npy', 'generate MAPS.npy CODES.npy OUT.npy')


def bundle(run: RegionRun, platforms: Sequence[str] = programs_lib.PLATFORMS):
  """Exports `encode`, for one image of the size used in training, and `generate`, for any size.

  Codes of labels without one are NaN; `generate` replaces them by the mean codes.

  Args:
    run: run, from `step_jax.load`.
    platforms: platforms to export for.

  Returns:
    An `export.programs.Bundle`.
  """
  module, size = run.generator, run.config.codes.size
  arrays = programs_lib.flatten(
    {
      'generator': {**run.params, 'mean': {'codes': run.mean.codes}},
      'codes': {'splines': spline_table()},
      # Used only by `restore`.
      'run': {'bank': codes_lib.pack(run.bank), 'mean': codes_lib.pack(run.mean)},
    }
  )
  multiple = 2**module.num_upsamplings

  def encode(params, image, labels):
    codes = extract(image, labels, run.num_labels, params['codes']['splines'])
    return jnp.where(codes.valid[..., None], codes.codes, jnp.nan)

  def generate(params, labels, codes):
    variables = dict(params['generator'])
    mean = variables.pop('mean')['codes']
    drawn = networks.draw(
      module, variables, labels.astype(jnp.int32), jnp.where(jnp.isnan(codes), mean, codes)
    )
    return images.to_uint8(drawn)

  code = f'{run.num_labels}, {CODE_SIZE}'
  square = f'1, {size}, {size}'
  maps = f'b, {multiple}*h, {multiple}*w'
  table = {
    'encode': (
      encode, arrays, 'codes',
      {'image': (f'{square}, 3', jnp.uint8), 'labels': (square, jnp.uint8)},
      'codes', f'codes of the regions of an image (RGB, 0..255) of {size} x {size} px',
    ),
    'generate': (
      generate, arrays, 'generator',
      {'labels': (maps, jnp.uint8), 'codes': (f'b, {code}', jnp.float32)},
      'images', 'images (RGB, 0..255) of label maps with a code for each label',
    ),
  }  # fmt: skip
  programs = {name: programs_lib.lower(*row, platforms=platforms) for name, row in table.items()}
  return programs_lib.Bundle(arrays, programs, _USAGE, multiple, multiple)


def restore(config: ml_collections.ConfigDict, step: int, tree: Mapping) -> RegionRun:
  """Creates a run from the arrays of its `bundle`.

  Args:
    config: configuration of the run.
    step: step of its checkpoint.
    tree: the arrays, as dicts of dicts.

  Raises:
    ValueError, KeyError: the arrays do not fit the configuration.
  """
  bank, mean = (tree['run'][name] for name in ('bank', 'mean'))
  shape = (networks.generator(config).num_labels, CODE_SIZE)
  if bank.shape[1:] != shape or mean.shape != shape:
    raise ValueError(f'codes have the shapes {bank.shape} and {mean.shape}')
  params = {name: part for name, part in tree['generator'].items() if name != 'mean'}
  params = exported.fit(params, run_lib.shapes(config))
  return RegionRun(config, step, params, extraction.unmarked(bank), extraction.unmarked(mean))
