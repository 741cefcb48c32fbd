"""Presets, as differences from the default (`step_v3`): the paper's ablation, and small images.

The rows of the ablation were inferred from the text and project page of the paper, because the
printed table could not be read. All have the same networks and reconstruction loss.
"""

from step_jax.methods.method import Preset

_SCRATCH = {'init_from': '', 'train_encoder': True, 'loss.z_l2': 0.0}
_RANDOM = {'loss.d2_random': 1.0, 'loss.z_random_recon': 10.0}
_CYCLE = {'loss.cycle_perceptual': 0.02, 'loss.z_recon': 10.0}
_KL = {'loss.z_kl': 0.01}
_VAE = {'model.variational': True}
_L2 = {'loss.z_l2': 0.01}
# For short training on small images: docs/results.md, "What helps at 64 px".
_SMALL = {
  'loss.recon_l1': 10.0,
  'optimizer.generator_lr': 6e-3,
  'optimizer.discriminator_lr': 6e-3,
}


def _preset(meaning: str, fields: dict) -> Preset:
  # Fine-tuning always starts from the previous stage.
  later = {name: value for name, value in fields.items() if name != 'init_from'}
  return Preset(meaning, {'translate': fields, 'finetune': later})


PRESETS = {
  'pix2pix': _preset(
    'no style: a code of length zero', {'init_from': '', 'model.z_dim': 0, 'loss.z_l2': 0.0}
  ),
  'bicyclegan_v1': _preset(
    'BicycleGAN: a variational encoder from scratch', _SCRATCH | _RANDOM | _KL | _VAE
  ),
  'bicyclegan_v2': _preset('bicyclegan_v1, not variational', _SCRATCH | _RANDOM | _KL),
  'bicyclegan_v3': _preset('bicyclegan_v2 with L2 in place of KL', _SCRATCH | _RANDOM | _L2),
  'munit_p_v1': _preset(
    'MUNIT for pairs: bicyclegan_v1 and cyclic reconstruction',
    _SCRATCH | _RANDOM | _CYCLE | _KL | _VAE,
  ),
  'munit_p_v2': _preset('munit_p_v1, not variational', _SCRATCH | _RANDOM | _CYCLE | _KL),
  'munit_p_v3': _preset('munit_p_v2 with L2 in place of KL', _SCRATCH | _RANDOM | _CYCLE | _L2),
  'step_v1': _preset('munit_p_v3 with a pre-trained encoder', _RANDOM | _CYCLE | _L2),
  'step_v2': _preset('step_v1 without cyclic reconstruction', _RANDOM | _L2),
  'step_v3': _preset('step_v2 without randomly sampled styles; the default', _L2),
  'step_v4': _preset('step_v3 without regularisation of codes', {'loss.z_l2': 0.0}),
  'small_images': Preset(
    'short training at 64 px: narrow networks, high learning rates, an L1 loss',
    {
      'pretrain': {'model.encoder_width': 32, 'optimizer.encoder_lr': 2e-3},
      'translate': {'model.generator_width': 16, 'model.discriminator_width': 16} | _SMALL,
      'finetune': _SMALL,
    },
  ),
}
