"""The tasks of pSp: loss weights and inputs, as differences from the defaults.

The first six are the reference's. `global` and `local` follow a summary of a paper, not its
released code: one style for all layers with an identity loss, and one style for each layer with a
term that holds the output to itself under random style mixing.
"""

_RESNET = {
  'model.encoder': 'resnet50_linear',
  'loss.l2': 0.0,
  'loss.l1': 1.0,
  'loss.lpips': 0.8,
  'features.net': 'vgg16',
  'features.taps': ('conv1_2', 'conv2_2', 'conv3_3', 'conv4_3', 'conv5_3'),
  'optimizer.name': 'adam',
}

PRESETS = {
  'encode': {'task': 'encode', 'data.flip': True, 'loss.identity': 0.1},
  'frontalize': {
    'task': 'frontalize',
    'data.flip': True,
    'loss.identity': 1.0,
    'loss.l2': 0.001,
    'loss.lpips': 0.08,
    'loss.l2_crop': 0.01,
    'loss.lpips_crop': 0.8,
    'loss.w_norm': 0.005,
  },
  'sketch': {'task': 'sketch', 'model.input_channels': 1, 'loss.w_norm': 0.005},
  'segmentation': {'task': 'segmentation', 'model.input_channels': 19, 'loss.w_norm': 0.005},
  'super_resolution': {
    'task': 'super_resolution',
    'loss.identity': 0.1,
    'loss.w_norm': 0.005,
  },
  'toonify': {'task': 'encode', 'data.flip': True, 'loss.identity': 1.0, 'loss.w_norm': 0.025},
  'global': {**_RESNET, 'task': 'encode', 'model.num_styles': 1, 'loss.identity': 1.0},
  'local': {**_RESNET, 'task': 'encode', 'loss.mixing': 1.0},
}
