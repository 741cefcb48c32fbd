"""SuperStyleNet: style codes by superpixels, one per region, and a generator that draws with them.

Kim et al., "SuperStyleNet: Deep Image Synthesis with Superpixel Based Style Encoder", BMVC 2021.
"""

from step_jax.methods.method import Method, Stage
from step_jax.methods.superstylenet.presets import PRESETS

_HERE = 'step_jax.methods.superstylenet'

METHOD = Method(
  name='superstylenet',
  title='SuperStyleNet: superpixel style codes per region, edited and drawn region by region',
  stages=(Stage('superstylenet', f'{_HERE}.stage'),),
  translating=('superstylenet',),
  run=f'{_HERE}.run:load',
  presets=PRESETS,
)
