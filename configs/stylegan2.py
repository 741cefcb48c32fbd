"""StyleGAN2: the generator whose style space pSp encodes into.

  step-jax train stylegan2 --data MY_IMAGES --size 256 --workdir runs/faces

Trains on single images, or on the targets of pairs. The defaults are those of rosinality's PyTorch
implementation. Expected: `val_frechet` falls throughout.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib
from step_jax.fields import DATA, FEATURES, shared
from step_jax.methods.psp import METHOD
from step_jax.methods.psp.fields import STYLEGAN2

FIELDS = (
  shared(
    'fsdp',
    'data.eval_crop',
    data=(*DATA, 'crop'),
    features=dict(net='alexnet', taps=FEATURES['alexnet']['taps'], weights=''),
    stage='stylegan2',
    method='stylegan2',
    batch_size=16,
    optimizer=dict(b1=0.0, b2=0.99),
    schedule=dict(total_kimg=12_800.0),
    every=dict(log=50, checkpoint=1000, evaluate=5000),
    best_metric='val_frechet',
    eval_pictures=1000,
    **{'data.flip': True},
  )
  | STYLEGAN2
)


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StyleGAN2 for a data set; see `step_jax.config.Options` for `arg`."""
  return config_lib.make(FIELDS, arg, METHOD.presets)
