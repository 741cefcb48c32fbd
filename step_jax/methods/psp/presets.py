"""The tasks of pSp: loss weights and inputs, as differences from the defaults.

The first six are the reference's. `global` and `local` follow a summary of a paper, not its
released code: one style for all layers with an identity loss, and one style for each layer with a
term that holds the output to itself under random style mixing.
"""

DEFAULTS = {
  'task': 'encode',
  'encoder': 'pyramid',
  'input_channels': 3,
  'start_from_mean': True,
  'loss.l2': 1.0,
  'loss.lpips': 0.8,
  'loss.l1': 0.0,
  'loss.identity': 0.0,
  'loss.moco': 0.0,
  'loss.l2_crop': 0.0,
  'loss.lpips_crop': 0.0,
  'loss.w_norm': 0.0,
  'loss.mixing': 0.0,
}

_RESNET = {
  'encoder': 'resnet50_linear',
  'loss.l2': 0.0,
  'loss.l1': 1.0,
  'loss.lpips': 0.8,
  'features.net': 'vgg16',
  'optimizer.name': 'adam',
}

PRESETS = {
  'encode': {'loss.identity': 0.1},
  'frontalize': {
    'task': 'frontalize',
    'loss.identity': 1.0,
    'loss.l2': 0.001,
    'loss.lpips': 0.08,
    'loss.l2_crop': 0.01,
    'loss.lpips_crop': 0.8,
    'loss.w_norm': 0.005,
  },
  'sketch': {'task': 'sketch', 'input_channels': 1, 'loss.w_norm': 0.005},
  'segmentation': {'task': 'segmentation', 'input_channels': 19, 'loss.w_norm': 0.005},
  'super_resolution': {
    'task': 'super_resolution',
    'loss.identity': 0.1,
    'loss.w_norm': 0.005,
  },
  'toonify': {'loss.identity': 1.0, 'loss.w_norm': 0.025},
  'global': {**_RESNET, 'num_styles': 1, 'loss.identity': 1.0},
  'local': {**_RESNET, 'loss.mixing': 1.0},
}
