"""A toy method for tests: label maps as inputs, one colour per label as code.

It has all features of methods that StEP lacks: label maps, codes that are a tree (a colour and a
validity flag per label), batch norm and spectral norm, a discriminator update after that of the
generator, a regulariser in every k-th step, optimizers that use the parameters, and a running
statistic that is large enough to be sharded.
"""

import pathlib

from step_jax.methods.method import Bench, Method, Option, Stage

HUES = ('any', 'red', 'green', 'blue')
METHOD = Method(
  name='mosaic',
  title='one colour per label (a method of the tests)',
  stages=(
    Stage('mosaic', 'mosaic.stage', config=str(pathlib.Path(__file__).with_name('config.py'))),
  ),
  translating=('mosaic',),
  run='mosaic.run:load',
  source_role='labels',
  code_roles=('target', 'labels'),
  options=(
    Option('hue', 'channel of drawn colours', of='draw', default='any', choices=HUES),
    Option(
      'labels', 'label map of each image', of='encode', nargs='+', read='mosaic.run:read_labels'
    ),
  ),
  read_source='mosaic.run:read_source',
  programs='mosaic.programs:bundle',
  benches={'mosaic_step': Bench(dict(size=16, batch=4), stages=('mosaic',))},
  cases='mosaic.cases',
)
