"""Settings of SuperStyleNet by name, as differences from the defaults."""

PRESETS = {
  # What the authors train with: 50 epochs of CelebAMask-HQ at 256 px, no average of the generator.
  'parity': {
    'ema_decay': 0.0,
    'batch_size': 32,
    'model.num_upsamplings': 5,
    'data.resize': 256,
    'data.crop': (256, 256),
    'data.flip': True,
  },
}
