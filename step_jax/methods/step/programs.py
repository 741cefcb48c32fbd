"""Programs of a StEP run for export."""

from collections.abc import Mapping, Sequence
import functools
import pathlib

import jax.numpy as jnp
import ml_collections

from step_jax.export import programs as programs_lib
from step_jax.methods import exported
from step_jax.methods.step import fitted, functions, networks, samplers
from step_jax.methods.step.models.generator import SIZE_MULTIPLE
from step_jax.methods.step.run import Translator, shapes

# The style encoder halves an image four times.
_MIN_STYLE = 16
_EXAMPLE = pathlib.Path(__file__).with_name('load_example.py')
_NO_CODES = (
  'this export has no codes of training images to draw styles with: train the mapper stage, then '
  'export again'
)
_NO_MAPPER = 'styles are drawn from the Gaussian of the training codes, as in the exported run'
_USAGE = ('encode STYLE.npy CODES.npy', 'generate SOURCE.npy CODES.npy OUT.npy')


def bundle(run: Translator, platforms: Sequence[str] = programs_lib.PLATFORMS):
  """Exports the programs of a run: `encode`, `generate`, and `sample` if it has a mapper stage.

  `encode` accepts images of any size from 16 px per side, `generate` sizes that are multiples of 8.

  Args:
    run: run, from `step_jax.load`.
    platforms: platforms to export for.

  Returns:
    An `export.programs.Bundle`.
  """
  config = run.config
  trees = dict(run.params)
  if run.samplers:
    # Used only by `restore`, to sample in the same way as this run.
    trees['run'] = {'codes': run.codes}
    trees[run.sampler_name] = run.samplers[run.sampler_name].params
  arrays = programs_lib.flatten(trees)
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  code = (f'b, {config.model.z_dim}', jnp.float32)
  lower = functools.partial(programs_lib.lower, platforms=platforms)
  programs = {
    'encode': lower(
      lambda params, pictures: functions.encode(encoder, params, pictures),
      arrays,
      'style_encoder',
      {'pictures': ('b, h, w, 3', jnp.uint8)},
      'codes',
      'style codes of pictures (RGB, 0..255)',
      (f'h >= {_MIN_STYLE}', f'w >= {_MIN_STYLE}'),
    ),
    'generate': lower(
      lambda params, sources, codes: functions.generate(generator, params, sources, codes),
      arrays,
      'generator',
      {'sources': (f'b, {SIZE_MULTIPLE}*h, {SIZE_MULTIPLE}*w, 3', jnp.uint8), 'codes': code},
      'pictures',
      'translations (RGB, 0..255) of source pictures in the styles of codes',
    ),
  }
  if run.samplers:
    sampler = run.samplers[run.sampler_name]
    programs['sample'] = lower(
      lambda params, noise: sampler.apply(params[sampler.name], noise),
      arrays,
      sampler.name,
      {'noise': code},
      'codes',
      f'new style codes (by the {sampler.name}) from noise, which is drawn from the standard '
      'normal distribution',
    )
  return programs_lib.Bundle(arrays, programs, _USAGE, _MIN_STYLE, SIZE_MULTIPLE, _EXAMPLE)


def restore(config: ml_collections.ConfigDict, step: int, tree: Mapping) -> Translator:
  """Creates a run from the arrays of its `bundle`.

  Args:
    config: configuration of the run.
    step: step of its checkpoint.
    tree: the arrays, as dicts of dicts.

  Raises:
    ValueError, KeyError: the arrays do not fit the configuration.
  """
  like = shapes(config)
  params = exported.fit({name: tree[name] for name in like}, like)
  if 'run' not in tree:
    return Translator(config, step, params, note=_NO_CODES)
  codes = tree['run']['codes']
  if codes.ndim != 2 or codes.shape[1] != config.model.z_dim or not len(codes):
    raise ValueError(f'codes have the shape {codes.shape}')
  mapper, note = None, _NO_MAPPER
  if 'mapper' in tree:
    mapper, note = samplers.stored_mapper(config.model.z_dim, tree['mapper']), ''
  encoder = fitted.Encoder(config.stage, step, fitted.digest(params['style_encoder']))
  return Translator(config, step, params, codes, mapper, note=note, fitted_to=encoder)
