"""Stage 1: pre-train the style encoder on triplets mined by style distance.

  step-jax train pretrain --data facades --workdir runs/facades
  python -m step_jax.main --config=configs/pretrain.py:facades --workdir=runs/facades

Expected: `triplet` falls from about 0.1 (the margin: nothing known) well below it, and
`val_triplet_accuracy` (how often a held-out picture's near neighbour has the nearer code) rises
from about 0.5 to above 0.9. The original has no end: it is stopped when the loss no longer falls.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StEP for a data set; see `step_jax.config.Options` for `arg`."""
  options = config_lib.Options.parse(arg)
  config = ConfigDict()
  config.stage = 'pretrain'
  config.method = 'pretrain'
  config.seed = 0
  config.dtype = 'float32'
  config.remat = False
  config.fsdp = False
  config.profile = ()
  config.batch_size = 12
  config.data = options.data(
    'path', 'layout', 'direction', 'val_fraction', 'resize', 'crop', 'scene', 'unreadable'
  )
  config.features = options.feature_net('net', 'taps')
  config.mining = options.data('num_nearest', 'num_farthest')
  config.mining.projection = 0
  config.model = ConfigDict(dict(z_dim=8, encoder_width=64, pixel_norm=True))
  config.loss = ConfigDict(dict(triplet=1.0, z_l2=0.01, margin=0.1))
  config.optimizer = ConfigDict(dict(encoder_lr=1e-3, b1=0.0, b2=0.99))
  config.schedule = ConfigDict(dict(fixed_kimg=200.0, total_kimg=200.0))
  config.every = ConfigDict(dict(log=50, checkpoint=500, evaluate=500))
  config.best_metric = 'val_triplet'
  return config
