"""Stage 4: fit the mapper to the style codes of the training pictures, so that styles can be drawn.

  step-jax train mapper --data facades --workdir runs/facades
  python -m step_jax.main --config=configs/mapper.py:facades --workdir=runs/facades

Reads the style encoder of the `finetune` stage of the same work directory. A step is one epoch over
the codes. Expected: `imle` falls by an order of magnitude and levels out, and `val_mapper_energy`
ends below `val_gaussian_energy`; if it does not, styles are drawn from the Gaussian by default.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StEP for a data set; see `step_jax.config.Options` for `arg`."""
  options = config_lib.Options.parse(arg)
  config = ConfigDict()
  config.stage = 'mapper'
  config.method = 'mapper'
  config.init_from = 'finetune'
  config.seed = 0
  config.dtype = 'float32'
  config.batch_size = 64
  config.data = options.data(
    'path', 'layout', 'direction', 'val_fraction', 'resize', 'eval_crop', 'unreadable'
  )
  config.model = ConfigDict(
    dict(z_dim=8, encoder_width=64, pixel_norm=True, mapper_hidden=(128, 128, 128))
  )
  config.imle = ConfigDict(
    dict(
      max_codes=50_000,
      standardize=True,
      sample_factor=10,
      staleness=5,
      noise=0.01,
      decay=0.7,
      decay_epochs=50,
    )
  )
  config.optimizer = ConfigDict(dict(mapper_lr=1e-2, b1=0.5, b2=0.999))
  config.schedule = ConfigDict(dict(epochs=500))
  config.every = ConfigDict(dict(log=10, checkpoint=100, evaluate=100))
  config.best_metric = 'val_mapper_energy'
  return config
