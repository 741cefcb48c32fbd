"""Stage 4: fit the mapper to the style codes of the training images, to sample new styles.

  step-jax train mapper --data facades --workdir runs/facades
  python -m step_jax.main --config=configs/mapper.py:facades --workdir=runs/facades

Reads the style encoder of the `finetune` stage of the same work directory. A step is one epoch over
the codes. Expected: `imle` falls by an order of magnitude and levels out, and `val_mapper_energy`
ends below `val_gaussian_energy`; otherwise, styles are sampled from the Gaussian by default.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib
from step_jax.fields import COUNT, DATA, NOT_NEGATIVE, Field, each, number, shared, take
from step_jax.methods.step import METHOD

FIELDS = (
  shared(
    data=(*DATA, 'eval_crop'),
    stage='mapper',
    method='mapper',
    init_from='finetune',
    batch_size=64,
    optimizer=dict(b1=0.5, b2=0.999),
    every=dict(log=10, checkpoint=100, evaluate=100),
    best_metric='val_mapper_energy',
  )
  | take(config_lib.stage_module('pretrain').FIELDS, model=('z_dim', 'encoder_width', 'pixel_norm'))
  | {
    'model.mapper_hidden': Field(
      (128, 128, 128),
      'widths of the hidden layers of the mapper',
      each(int, COUNT, 'integers', range(100)),
    ),
    'imle.max_codes': Field(
      50_000, 'maximum number of codes; a random subset is used if there are more', COUNT
    ),
    'imle.standardize': Field(
      True,
      'whether to train the mapper on codes scaled to mean 0 and standard deviation 1 in every '
      'dimension; false: on unscaled codes, as the original does',
    ),
    'imle.sample_factor': Field(
      10, 'number of samples per code, among which the nearest is searched', COUNT
    ),
    'imle.staleness': Field(5, 'number of epochs between searches', COUNT),
    'imle.noise': Field(
      0.01, 'standard deviation of the noise added to paired latents', NOT_NEGATIVE
    ),
    'imle.decay': Field(
      0.7, 'factor by which the learning rate decays', number('above 0', 'at most 1')
    ),
    'imle.decay_epochs': Field(50, 'number of epochs between decays of the learning rate', COUNT),
    'optimizer.mapper_lr': Field(1e-2, 'learning rate of the mapper', NOT_NEGATIVE),
    'schedule.epochs': Field(500, 'number of passes over the codes', COUNT),
  }
)


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StEP for a data set; see `step_jax.config.Options` for `arg`."""
  return config_lib.make(FIELDS, arg, METHOD.presets)
