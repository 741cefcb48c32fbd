"""Stage 2: train the generator with the pre-trained style encoder frozen; and every baseline.

  step-jax train translate --data facades --workdir runs/facades
  python -m step_jax.main --config=configs/translate.py:facades --workdir=runs/facades
  python -m step_jax.main --config=configs/translate.py:facades,preset=munit_p_v1 --workdir=runs/m

Starts from the `pretrain` stage of the same work directory; baselines start from scratch. Expected:
`val_perceptual` falls throughout; from about 10 kimg on, samples have the colours of their style
image.
"""

import dataclasses

from ml_collections import ConfigDict

from step_jax import config as config_lib
from step_jax import fields, losses
from step_jax.fields import (
  COUNT,
  DATA,
  NOT_NEGATIVE,
  SHARE,
  Field,
  Rule,
  each,
  is_a,
  one_of,
  shared,
  take,
)
from step_jax.methods.step import METHOD
from step_jax.methods.step.steps import terms

_PROBABILITY_AND_FACTOR = Rule(
  'a probability and a factor of at least 1',
  lambda pair: (
    len(pair) == 2 and all(is_a(x, float) for x in pair) and 0 <= pair[0] <= 1 <= pair[1]
  ),
)
_STYLE = take(
  config_lib.stage_module('pretrain').FIELDS, model=('z_dim', 'encoder_width', 'pixel_norm')
)
FIELDS = (
  shared(
    'remat',
    'fsdp',
    'eval_pictures',
    'data.flip',
    data=(*DATA, 'crop', 'eval_crop'),
    features=('net', 'taps', 'weights'),
    stage='translate',
    method='translate',
    init_from='pretrain',
    batch_size=8,
    optimizer=dict(b1=0.0, b2=0.99),
    schedule=dict(total_kimg=250.0, fixed_kimg=150.0),
    every=dict(log=50, checkpoint=1000, evaluate=1250),
    best_metric='val_perceptual',
  )
  | _STYLE
  | {
    # Without styles, as pix2pix has it, codes have length zero.
    'model.z_dim': dataclasses.replace(_STYLE['model.z_dim'], rule=NOT_NEGATIVE),
    'train_encoder': Field(False, 'whether to train the style encoder together with the generator'),
    'ema_decay': Field(
      0.999, 'decay rate of the moving averages; rises to this value in the first steps', SHARE
    ),
    'data.rescale': Field(
      (),
      'pairs of a probability and the factor by which an example is enlarged with it',
      each(tuple, _PROBABILITY_AND_FACTOR, 'pairs', range(100)),
    ),
    'features.tap_weights': Field(
      fields.FEATURES['vgg16']['tap_weights'],
      'weight of each tap in the perceptual loss',
      each(float, NOT_NEGATIVE, 'numbers'),
    ),
    'model.generator_width': Field(
      32, 'channels of the first layer of the generator; superstylenet: of the last', COUNT
    ),
    'model.discriminator_width': Field(
      32, 'channels of the first layer of each discriminator', COUNT
    ),
    'model.num_scales': Field(
      3, 'number of scales of a discriminator, each half as large as the one before', COUNT
    ),
    'model.spectral_norm': Field(
      False, 'whether kernels of discriminators are divided by their largest singular value'
    ),
    'model.skip': Field(True, "whether the decoder also gets the content encoder's feature maps"),
    'model.code_everywhere': Field(
      True, 'whether every block of the decoder gets the code; false: only the first'
    ),
    'model.variational': Field(
      False,
      'whether training samples codes around the mean; false: the noise is fixed at one',
    ),
    'optimizer.generator_lr': Field(
      1e-3,
      'learning rate of the generator, and of an encoder that is trained with it',
      NOT_NEGATIVE,
    ),
    'optimizer.discriminator_lr': Field(1e-3, 'learning rate of the discriminators', NOT_NEGATIVE),
    'optimizer.latent_lr': Field(
      1e-4,
      "learning rate of the generator's second optimizer, for terms on swapped and random codes",
      NOT_NEGATIVE,
    ),
  }
  | terms.fields(terms.TRANSLATE)
  | {
    'loss.adversarial': Field(
      'least_squares', 'form of the adversarial losses', one_of(*losses.ADVERSARIAL)
    ),
    'loss.r1': Field(
      0.0,
      'R1: squared gradient of the discriminator at real images',
      NOT_NEGATIVE,
    ),
  }
)


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StEP for a data set; see `step_jax.config.Options` for `arg`."""
  return config_lib.make(FIELDS, arg, METHOD.presets)
