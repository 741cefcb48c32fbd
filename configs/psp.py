"""pSp: an encoder into the style space of a trained StyleGAN2.

  step-jax train psp --workdir runs/faces --preset encode

Starts from the `stylegan2` stage of the same work directory. Its generator is frozen unless
`train_generator` is set. Expected: `val_lpips` and `val_l2` fall throughout.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib
from step_jax.fields import DATA, FEATURES, shared
from step_jax.methods.psp import METHOD
from step_jax.methods.psp.fields import PSP

FIELDS = (
  shared(
    'fsdp',
    'data.eval_crop',
    'data.flip',
    'eval_pictures',
    data=(*DATA, 'crop'),
    features=dict(net='alexnet', taps=FEATURES['alexnet']['taps'], weights=''),
    stage='psp',
    method='psp',
    init_from='stylegan2',
    batch_size=8,
    schedule=dict(total_kimg=2400.0),
    every=dict(log=50, checkpoint=1000, evaluate=2500),
    best_metric='val_loss',
  )
  | PSP
)


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of pSp for a data set; see `step_jax.config.Options` for `arg`."""
  return config_lib.make(FIELDS, arg, METHOD.presets)
