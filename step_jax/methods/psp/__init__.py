"""pSp: an encoder into the extended latent space W+ of StyleGAN2, and StyleGAN2 itself.

Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation", CVPR
2021; Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020.
"""

from step_jax.methods.method import Method, Stage
from step_jax.methods.psp.presets import PRESETS

_HERE = 'step_jax.methods.psp'

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
  presets=PRESETS,
)
