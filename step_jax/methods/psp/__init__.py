"""pSp: an encoder into the extended latent space W+ of StyleGAN2, and StyleGAN2 itself.

Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation", CVPR
2021; Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020.
"""

import argparse
from collections.abc import Callable

from step_jax.methods.method import Bench, Importer, Method, Option, Stage
from step_jax.methods.psp.presets import PRESETS

_HERE = 'step_jax.methods.psp'


def _number(least: float, most: float) -> Callable[[str], float]:
  """Type of command-line arguments: numbers within bounds."""

  def parse(text: str) -> float:
    try:
      value = float(text)
    except ValueError:
      value = least - 1
    if not least <= value <= most:  # Also true for NaN.
      raise argparse.ArgumentTypeError(f'{text!r} is not a number from {least:g} to {most:g}')
    return value

  return parse


_BENCHED = ('size', 'batch', 'width')
_DATA = Option('data', 'images, for evaluation and further training', default='')

METHOD = Method(
  name='psp',
  title='pSp: StyleGAN2, and an encoder of images, drawings or label maps into its styles',
  stages=(
    Stage('stylegan2', f'{_HERE}.stages.stylegan2'),
    Stage('psp', f'{_HERE}.stages.psp'),
  ),
  translating=('psp',),
  run=f'{_HERE}.run:load',
  needs_code=False,
  code_roles=('source',),
  roles=f'{_HERE}.inputs:roles',
  options=(
    Option(
      'layers',
      'layers that use the given or sampled style, such as 8-, 8-13 or 0,3,-2- (default: those '
      'that do not change the layout, 8- of 18)',
      default='',
    ),
    Option(
      'alpha',
      'share of the given or sampled style in these layers, 0 to 1 (default: 1)',
      default=1.0,
      kind=_number(0, 1),
    ),
    Option(
      'masked',
      'style of --layers if neither --style nor --sample is given (default: mean)',
      default='mean',
      choices=('mean', 'zero'),
    ),
    Option(
      'truncation',
      'truncation of sampled styles: 1 for full variety, less for better images and less variety',
      of='draw',
      default=1.0,
      kind=_number(0, 1),
    ),
    Option(
      'run', 'run with the same generator that encodes the style images', of='encode', default=''
    ),
  ),
  read_source=f'{_HERE}.inputs:read',
  presets=PRESETS,
  session=f'{_HERE}.scores:PspSession',
  measures=f'{_HERE}.scores:MEASURES',
  programs=f'{_HERE}.programs:bundle',
  restore=f'{_HERE}.programs:restore',
  benches={
    'stylegan2_step': Bench(
      dict(size=32, batch=8, width=16), fields=_BENCHED, stages=('stylegan2',), peers=('torch',)
    ),
    'psp_step': Bench(
      dict(size=64, batch=4, width=16), fields=_BENCHED, stages=('psp',), peers=('torch',)
    ),
  },
  cases=f'{_HERE}.cases',
  convert=f'{_HERE}.published:convert',
  importers=(
    Importer(
      'import-stylegan2',
      "import rosinality's .pt or NVIDIA's StyleGAN2-ADA pickle",
      'FILE',
      f'{_HERE}.import_run:import_stylegan2',
      options=(_DATA,),
    ),
    Importer(
      'import-psp',
      "import the authors' .pt of pSp",
      'FILE',
      f'{_HERE}.import_run:import_psp',
      options=(_DATA,),
    ),
  ),
  galleries=f'{_HERE}.galleries:make',
  quickstart=f'{_HERE}.quickstart:RECIPE',
)
