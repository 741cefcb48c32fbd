"""Stage 1: pre-train the style encoder on triplets mined by style distance.

  step-jax train pretrain --data facades --workdir runs/facades
  python -m step_jax.main --config=configs/pretrain.py:facades --workdir=runs/facades

Expected: `triplet` starts at about 0.1, the margin, and falls well below it; `val_triplet_accuracy`
(how often the code of a held-out image is nearer to that of its positive than to that of its
negative) rises from about 0.5 to above 0.9. The original has no fixed length: it is stopped when
the loss no longer falls.
"""

import dataclasses

from ml_collections import ConfigDict

from step_jax import config as config_lib
from step_jax import losses
from step_jax.fields import COUNT, DATA, NOT_NEGATIVE, Field, number, one_of, shared
from step_jax.methods.step import METHOD
from step_jax.methods.step.steps import terms

_STYLES_NEEDED = dataclasses.replace(
  number('at least 1'),
  advice='a run without styles (preset pix2pix) has no style encoder to pre-train and no mapper: '
  'train the stage translate alone',
)

FIELDS = (
  shared(
    'remat',
    'fsdp',
    data=(*DATA, 'crop'),
    features=('net', 'taps', 'weights'),
    stage='pretrain',
    method='pretrain',
    batch_size=12,
    optimizer=dict(b1=0.0, b2=0.99),
    schedule=dict(total_kimg=200.0, fixed_kimg=200.0),
    every=dict(log=50, checkpoint=500, evaluate=500),
    best_metric='val_triplet',
  )
  | terms.fields(terms.PRETRAIN)
  | {
    'data.scene': Field(
      '',
      'regular expression whose first group matches the scene in the name of an image; positives '
      'are then taken from other scenes',
    ),
    'mining.num_nearest': Field(
      5, 'number of nearest images by style from which positives are sampled', COUNT
    ),
    'mining.num_farthest': Field(
      13, 'number of farthest images by style from which negatives are sampled', COUNT
    ),
    'mining.projection': Field(
      0,
      'length that style vectors are reduced to, for very large data sets; 0: no reduction',
      NOT_NEGATIVE,
    ),
    'mining.tap_weights': Field(
      'equal',
      'weights of feature taps in the style distance: `equal` as in the released code, or '
      '`squared_channels` as in the formula of Gatys et al. that the paper cites',
      one_of(*losses.TAP_WEIGHTS),
    ),
    'model.z_dim': Field(8, 'length of a style code', _STYLES_NEEDED),
    'model.encoder_width': Field(64, 'channels of the first layer of the style encoder', COUNT),
    'model.pixel_norm': Field(True, 'whether each block of the style encoder ends in a pixel norm'),
    'loss.margin': Field(
      0.1, 'margin of `triplet`, not a weight: how much farther a negative must be', NOT_NEGATIVE
    ),
    'optimizer.encoder_lr': Field(
      1e-3, 'learning rate of the style encoder in pre-training', NOT_NEGATIVE
    ),
  }
)


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StEP for a data set; see `step_jax.config.Options` for `arg`."""
  return config_lib.make(FIELDS, arg, METHOD.presets)
