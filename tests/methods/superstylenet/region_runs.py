"""The smallest run of SuperStyleNet, on swatches with label maps."""

from step_jax import config as config_lib
from step_jax import methods

FIELDS = {
  'batch_size': 4,
  'features.taps': ('conv1',),
  'features.tap_weights': (1.0,),
  'features.weights': 'random',
  'codes.size': 32,
  'data.flip': True,
  'model.generator_width': 1,
  'model.discriminator_width': 2,
  'model.label_width': 4,
  'model.spade_width': 4,
  'model.num_upsamplings': 1,
  'schedule.total_kimg': 0.024,
  'schedule.fixed_kimg': 0.012,
  'every.log': 2,
  'every.checkpoint': 2,
  'every.evaluate': 6,
}
IMAGES = {'train': 10, 'val': 4}


def config(**fields):
  arg = 'swatches_regional,size=16,features=squeezenet1_1'
  found = config_lib.load(f'{config_lib.stage_file("superstylenet")}:{arg}')
  found.update_from_flattened_dict({**FIELDS, **fields})
  return found


def train(workdir, **fields):
  return methods.train(config(**fields), workdir)
