"""Settings of SuperStyleNet by name, as differences from the defaults."""

from step_jax.methods.method import Preset

PRESETS = {
  'parity': Preset(
    "the authors' training at 256 px: batches of 32, mirrored images, no moving average",
    {
      'superstylenet': {
        'ema_decay': 0.0,
        'batch_size': 32,
        'model.num_upsamplings': 5,
        'data.resize': 256,
        'data.crop': (256, 256),
        'data.flip': True,
      }
    },
  ),
}
