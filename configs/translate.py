"""Stage 2: train the generator with the pre-trained style encoder frozen; and every baseline.

  step-jax train translate --data facades --workdir runs/facades
  python -m step_jax.main --config=configs/translate.py:facades --workdir=runs/facades
  python -m step_jax.main --config=configs/translate.py:facades,preset=munit_p_v1 --workdir=runs/m

Starts from the `pretrain` stage of the same work directory; baselines start from scratch. Expected:
`val_perceptual` falls throughout; samples carry the colours of their style picture from about 10
kimg on.
"""

from ml_collections import ConfigDict

from step_jax import config as config_lib

_SCRATCH = {'init_from': '', 'train_encoder': True, 'loss.z_l2': 0.0}
_RANDOM = {'loss.d2_random': 1.0, 'loss.z_random_recon': 10.0}
_CYCLE = {'loss.cycle_perceptual': 0.02, 'loss.z_recon': 10.0}
_KL = {'loss.z_kl': 0.01}
_VAE = {'model.variational': True}
_L2 = {'loss.z_l2': 0.01}

# The rows of the paper's ablation, inferred from its text and project page (the printed table could
# not be read), as differences from the default below. All share networks and reconstruction loss.
PRESETS = {
  # No style at all: a code of length zero. The floor.
  'pix2pix': {'init_from': '', 'model.z_dim': 0, 'loss.z_l2': 0.0},
  'bicyclegan_v1': _SCRATCH | _RANDOM | _KL | _VAE,
  'bicyclegan_v2': _SCRATCH | _RANDOM | _KL,
  'bicyclegan_v3': _SCRATCH | _RANDOM | _L2,
  'munit_p_v1': _SCRATCH | _RANDOM | _CYCLE | _KL | _VAE,
  'munit_p_v2': _SCRATCH | _RANDOM | _CYCLE | _KL,
  'munit_p_v3': _SCRATCH | _RANDOM | _CYCLE | _L2,
  'step_v1': _RANDOM | _CYCLE | _L2,
  'step_v2': _RANDOM | _L2,
  # The released default.
  'step_v3': _L2,
  'step_v4': {'loss.z_l2': 0.0},
}


def get_config(arg: str | None = None) -> ConfigDict:
  """The defaults of StEP for a data set; see `step_jax.config.Options` for `arg`."""
  options = config_lib.Options.parse(arg)
  config = ConfigDict()
  config.stage = 'translate'
  config.method = 'translate'
  config.init_from = 'pretrain'
  config.train_encoder = False
  config.seed = 0
  config.dtype = 'float32'
  config.remat = False
  config.fsdp = False
  config.profile = ()
  config.batch_size = 8
  config.data = options.data(
    'path',
    'layout',
    'direction',
    'val_fraction',
    'resize',
    'crop',
    'rescale',
    'flip',
    'eval_crop',
    'unreadable',
  )
  config.features = options.feature_net('net', 'taps', 'tap_weights')
  config.model = ConfigDict(
    dict(
      z_dim=8,
      encoder_width=64,
      generator_width=32,
      discriminator_width=32,
      num_scales=3,
      pixel_norm=True,
      skip=True,
      code_everywhere=True,
      variational=False,
    )
  )
  config.loss = ConfigDict(
    dict(
      recon_perceptual=0.02,
      recon_l1=0.0,
      cycle_perceptual=0.0,
      cycle_l1=0.0,
      gan=1.0,
      d_direct=1.0,
      d_cycle=0.0,
      d_swap=0.0,
      d_random=0.0,
      d2_random=0.0,
      z_kl=0.0,
      z_l2=0.01,
      z_recon=0.0,
      z_random_recon=0.0,
    )
  )
  config.optimizer = ConfigDict(
    dict(generator_lr=1e-3, discriminator_lr=1e-3, latent_lr=1e-4, b1=0.0, b2=0.99)
  )
  config.schedule = ConfigDict(dict(fixed_kimg=150.0, total_kimg=250.0))
  config.ema_decay = 0.999
  config.every = ConfigDict(dict(log=50, checkpoint=1000, evaluate=1250))
  config.best_metric = 'val_perceptual'
  config.eval_pictures = 128
  if options.preset:
    changes = config_lib.choose(PRESETS, options.preset, 'preset')
    config.update_from_flattened_dict(changes)
  return config
