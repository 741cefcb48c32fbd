"""Programs of a pSp run for export."""

from collections.abc import Mapping, Sequence
import functools

import jax.numpy as jnp
import ml_collections

from step_jax.export import programs as programs_lib
from step_jax.methods import exported
from step_jax.methods.psp import functions, networks
from step_jax.methods.psp import run as run_lib

_USAGE = (
  'encode IMAGES.npy CODES.npy',
  'sample NOISE.npy CODES.npy',
  'generate CODES.npy OUT.npy',
)
# Shape of the encoder's input, if it is not an image with three channels.
_SOURCES = {'segmentation': 'b, {0}, {0}', 'sketch': 'b, {0}, {0}, 1'}


def bundle(run: run_lib.PspRun, platforms: Sequence[str] = programs_lib.PLATFORMS):
  """Exports `generate`, `sample`, and, if the run has an encoder, `encode`.

  To mix styles, replace those of some layers in the codes.

  Args:
    run: run, from `step_jax.load`.
    platforms: platforms to export for.

  Returns:
    An `export.programs.Bundle`.
  """
  config, variables = run.config, run.params
  generator = networks.generator(config)
  params, noise = (variables['generator'][name] for name in ('params', 'noise'))
  trees = {
    'mapping': {'generator': {'params': {'mapping': params['mapping']}}},
    'synthesis': {'generator': {'params': {'synthesis': params['synthesis']}, 'noise': noise}},
  }
  trees['mapping']['mean_style'] = variables['mean_style']
  if 'encoder' in variables:
    own = {name: variables[name] for name in ('encoder', 'mean_style')}
    trees['encoder'] = own
  arrays = programs_lib.flatten(trees)
  code = f'b, {generator.num_styles}, {generator.style_dim}'
  lower = functools.partial(programs_lib.lower, platforms=platforms)
  programs = {
    'generate': lower(
      lambda params, codes: functions.draw(generator, params['synthesis'], codes),
      arrays,
      'synthesis',
      {'codes': (code, jnp.float32)},
      'images',
      'images (RGB, 0..255) of codes, one style for each layer',
    ),
    'sample': lower(
      lambda params, noise: functions.random_styles(generator, params['mapping'], noise),
      arrays,
      'mapping',
      {'noise': (f'b, {generator.style_dim}', jnp.float32)},
      'codes',
      'new codes from noise, which is drawn from the standard normal distribution',
    ),
  }
  side = 8
  if 'encoder' in variables:
    side = config.model.encoder_size
    encoder = networks.encoder(config)
    encode = functools.partial(run_lib.encode_sources, config, encoder, generator)
    shape = _SOURCES.get(config.task, 'b, {0}, {0}, 3').format(side)
    programs['encode'] = lower(
      lambda params, sources: encode(params['encoder'], sources),
      arrays,
      'encoder',
      {'sources': (shape, jnp.uint8)},
      'codes',
      'codes of sources (0..255, or classes), in the size of the encoder',
    )
  return programs_lib.Bundle(arrays, programs, _USAGE, side, side)


def restore(config: ml_collections.ConfigDict, step: int, tree: Mapping) -> run_lib.PspRun:
  """Creates a run from the arrays of its `bundle`.

  Args:
    config: configuration of the run.
    step: step of its checkpoint.
    tree: the arrays, as dicts of dicts.

  Raises:
    ValueError, KeyError: the arrays do not fit the configuration.
  """
  mapping, synthesis = tree['mapping'], tree['synthesis']
  params = {
    'generator': {
      'params': {**mapping['generator']['params'], **synthesis['generator']['params']},
      'noise': synthesis['generator']['noise'],
    },
    'mean_style': mapping['mean_style'],
  }
  if 'encoder' in tree:
    params['encoder'] = tree['encoder']['encoder']
  like = functions.variables(run_lib.state_shapes(config))
  return run_lib.PspRun(config, step, exported.fit(params, like))
