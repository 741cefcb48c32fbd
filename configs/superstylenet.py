"""SuperStyleNet: generate images from label maps and one style code per region.

  step-jax train superstylenet --data swatches --workdir runs/regions
  step-jax train superstylenet --data facades --size 64 --workdir runs/facades
  python -m step_jax.main --config=configs/superstylenet.py:facades --workdir=runs/facades

Images need label maps. The style codes of all images are extracted at the first start and cached.
Expected: after a few kimg, `val_psnr`, with an image's own codes, is above `val_psnr_other`, with
the codes of another image.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib
from step_jax import fields
from step_jax.fields import COUNT, DATA, LABELS, NOT_NEGATIVE, SHARE, Field, each, number, shared
from step_jax.methods.superstylenet import METHOD

_FEATURES = fields.FEATURES['vgg19']

FIELDS = shared(
  'fsdp',
  'eval_pictures',
  data=(*DATA, *LABELS, 'crop', 'eval_crop', 'flip'),
  stage='superstylenet',
  method='superstylenet',
  batch_size=8,
  features=dict(net=_FEATURES['net'], taps=_FEATURES['taps'], weights=''),
  optimizer=dict(b1=0.0, b2=0.9),
  schedule=dict(total_kimg=1500.0, fixed_kimg=1500.0),
  every=dict(log=50, checkpoint=1000, evaluate=1250),
  best_metric='val_l1',
) | {
  'ema_decay': Field(
    0.999, 'decay rate of the moving averages; rises to this value in the first steps', SHARE
  ),
  'features.tap_weights': Field(
    _FEATURES['tap_weights'],
    'weight of each tap in the perceptual loss',
    each(float, NOT_NEGATIVE, 'numbers'),
  ),
  'codes.size': Field(
    512,
    'side of the squares that images are resized to before style codes are extracted, px',
    number('at least 16'),
  ),
  'model.generator_width': Field(
    64, 'channels of the first layer of the generator; superstylenet: of the last', COUNT
  ),
  'model.discriminator_width': Field(
    64, 'channels of the first layer of each discriminator', COUNT
  ),
  'model.num_upsamplings': Field(
    0,
    'number of upsamplings from the smallest feature map to the image, 1 to 6; 0: up to 5, as long '
    'as the smallest map has at least 8 px',
    NOT_NEGATIVE,
  ),
  'model.label_width': Field(
    0,
    'width of the fully connected layer of each label; 0: the length of a code, 512',
    NOT_NEGATIVE,
  ),
  'model.spade_width': Field(128, 'channels of the hidden layers on the label map', COUNT),
  'loss.gan': Field(1.0, "weight of the generator's adversarial loss", NOT_NEGATIVE),
  'loss.feature_matching': Field(
    10.0,
    'mean absolute difference of the discriminator features of output and target',
    NOT_NEGATIVE,
  ),
  'loss.perceptual': Field(
    10.0,
    'mean absolute difference of the feature network outputs of output and target',
    NOT_NEGATIVE,
  ),
  'optimizer.generator_lr': Field(
    1e-4, 'learning rate of the generator, and of an encoder that is trained with it', NOT_NEGATIVE
  ),
  'optimizer.discriminator_lr': Field(4e-4, 'learning rate of the discriminators', NOT_NEGATIVE),
}


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of SuperStyleNet for a data set; see `step_jax.config.Options` for `arg`."""
  return config_lib.make(FIELDS, arg, METHOD.presets)
