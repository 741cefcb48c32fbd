"""Fields of the stage `mosaic`; importing this file registers the method."""

from ml_collections import ConfigDict

import mosaic
from step_jax import config as config_lib
from step_jax import methods
from step_jax.fields import COUNT, DATA, LABELS, NOT_NEGATIVE, SHARE, Field, shared

methods.register(mosaic.METHOD)

FIELDS = shared(
  'init_from',
  'fsdp',
  data=(*DATA, *LABELS, 'crop', 'eval_crop'),
  stage='mosaic',
  method='mosaic',
  batch_size=8,
  optimizer=dict(b1=0.0, b2=0.9),
  schedule=dict(total_kimg=0.048),
  every=dict(log=2, checkpoint=2, evaluate=4),
  best_metric='val_l1',
) | {
  'ema_decay': Field(0.9, 'of the moving average of the generator', SHARE),
  'model.num_labels': Field(8, 'labels that a map may have', COUNT),
  'model.width': Field(24, 'channels of both networks', COUNT),
  'loss.l1': Field(1.0, 'mean absolute difference', NOT_NEGATIVE),
  'loss.r1': Field(0.1, 'R1 penalty', NOT_NEGATIVE),
  'loss.r1_every': Field(3, 'steps from one R1 penalty to the next', COUNT),
  'optimizer.lr': Field(1e-3, 'learning rate of both networks', NOT_NEGATIVE),
}


def get_config(arg: str | None = None) -> ConfigDict:
  return config_lib.make(FIELDS, arg)
