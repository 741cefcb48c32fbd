"""Presets of pSp's tasks: loss weights and inputs, as differences from the defaults.

The first six are those of the reference. `global` and `local` follow a summary of a paper, not its
released code: one style for all layers with an identity loss, and one style per layer with a
consistency loss under random style mixing.
"""

from step_jax.methods.method import Preset

_OWN = {'task': 'encode', 'data.flip': True}
_RESNET = {
  'model.encoder': 'resnet50_linear',
  'loss.l2': 0.0,
  'loss.l1': 1.0,
  'loss.lpips': 0.8,
  'features.net': 'vgg16',
  'features.taps': ('conv1_2', 'conv2_2', 'conv3_3', 'conv4_3', 'conv5_3'),
  'optimizer.name': 'adam',
}


def _preset(meaning: str, fields: dict) -> Preset:
  return Preset(meaning, {'psp': fields})


PRESETS = {
  'encode': _preset('reconstruct faces', _OWN | {'loss.identity': 0.1}),
  'frontalize': _preset(
    'turn faces to the front',
    {
      'task': 'frontalize',
      'data.flip': True,
      'loss.identity': 1.0,
      'loss.l2': 0.001,
      'loss.lpips': 0.08,
      'loss.l2_crop': 0.01,
      'loss.lpips_crop': 0.8,
      'loss.w_norm': 0.005,
    },
  ),
  'sketch': _preset(
    'generate images from grey drawings',
    {'task': 'sketch', 'loss.w_norm': 0.005},
  ),
  'segmentation': _preset(
    'generate images from label maps; set `data.palette` and `data.classes`',
    {'task': 'segmentation', 'loss.w_norm': 0.005},
  ),
  'super_resolution': _preset(
    'increase the resolution of faces',
    {'task': 'super_resolution', 'loss.identity': 0.1, 'loss.w_norm': 0.005},
  ),
  'toonify': _preset(
    'turn faces into cartoons, with a generator of cartoons',
    _OWN | {'loss.identity': 1.0, 'loss.w_norm': 0.025},
  ),
  'global': _preset(
    'ResNet-50 encoder with one style for all layers',
    _OWN | _RESNET | {'model.num_styles': 1, 'loss.identity': 1.0},
  ),
  'local': _preset(
    'ResNet-50 encoder with one style per layer, trained to keep outputs under style mixing',
    _OWN | _RESNET | {'loss.mixing': 1.0},
  ),
}
