"""A method of the tests: label maps in, one colour per label as the code.

It has everything that a method may have and StEP has not: label maps, codes that are a tree (a
colour and a validity flag per label), batch norm and spectral norm, a discriminator that judges
images of the generator after its move, a regulariser in every k-th step only, optimizers that read
the parameters, and a running statistic that is large enough to be split over devices.
"""

import pathlib

from step_jax import methods
from step_jax.methods.method import Method, Stage

METHOD = Method(
  name='mosaic',
  title='one colour per label (a method of the tests)',
  stages=(
    Stage('mosaic', 'mosaic.stage', config=str(pathlib.Path(__file__).with_name('config.py'))),
  ),
  translating=('mosaic',),
  run='mosaic.run:load',
)
methods.register(METHOD)
