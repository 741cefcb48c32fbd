"""Stage 3: fine-tune generator and style encoder together.

  step-jax train finetune --data facades --workdir runs/facades
  python -m step_jax.main --config=configs/finetune.py:facades --workdir=runs/facades

Starts from the `translate` stage of the same work directory. Expected: `val_perceptual` ends below
that of stage 2. In the original, 600 (fixed) and 700 (total) kimg include the 250 of stage 2, so
fine-tuning takes 350 and 450.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib
from step_jax.fields import take
from step_jax.methods.step import METHOD

_TRANSLATE = config_lib.stage_module('translate')
FIELDS = take(
  _TRANSLATE.FIELDS,
  *_TRANSLATE.FIELDS,
  stage='finetune',
  init_from='translate',
  train_encoder=True,
  schedule=dict(total_kimg=450.0, fixed_kimg=350.0),
)


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StEP for a data set; see `step_jax.config.Options` for `arg`."""
  return config_lib.make(FIELDS, arg, METHOD.presets)
