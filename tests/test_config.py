"""Fields are set as their types want, and wrong ones are met with one line that helps."""

import pytest

from step_jax import config as config_lib
from step_jax.errors import ConfigError, RunError


def load(stage, arg=''):
  return config_lib.load(f'{config_lib.stage_file(stage)}:{arg}')


@pytest.mark.parametrize('stage', config_lib.STAGES)
@pytest.mark.parametrize('name', [name for name in config_lib.DATASETS if name])
def test_every_stage_of_every_data_set_is_valid(stage, name):
  config = load(stage, name)
  config_lib.validate(config)
  assert config.stage == stage and config.arg == name


def test_data_sets_have_the_settings_of_the_original():
  facades = load('translate', 'facades').data
  assert facades.direction == 'BtoA' and facades.rescale == ((0.5, 1.25), (0.25, 1.5))
  assert facades.crop == (256, 256) and facades.eval_crop == (256, 256)
  assert load('translate', 'edges2shoes').data.direction == 'AtoB'
  assert load('translate', 'night2day').data.rescale == ((0.5, 1.25),)
  assert load('translate', 'maps').data.eval_crop == (512, 512)
  needle = load('pretrain', 'space_needle_timelapse')
  assert dict(needle.mining) == {'num_nearest': 15, 'num_farthest': 78, 'projection': 0}
  assert needle.data.scene and needle.data.direction == 'BtoA'


def test_defaults_of_the_original():
  pretrain, translate, finetune, mapper = (load(stage, 'facades') for stage in config_lib.STAGES)
  assert pretrain.batch_size == 12 and translate.batch_size == 8 and mapper.batch_size == 64
  assert dict(pretrain.mining) == {'num_nearest': 5, 'num_farthest': 13, 'projection': 0}
  assert dict(pretrain.loss) == {'triplet': 1.0, 'z_l2': 0.01, 'margin': 0.1}
  on = {name: weight for name, weight in translate.loss.items() if weight}
  assert on == {'recon_perceptual': 0.02, 'gan': 1.0, 'd_direct': 1.0, 'z_l2': 0.01}
  rates = translate.optimizer
  assert (rates.generator_lr, rates.discriminator_lr, rates.latent_lr) == (1e-3, 1e-3, 1e-4)
  assert (rates.b1, rates.b2, translate.ema_decay) == (0.0, 0.99, 0.999)
  assert tuple(translate.schedule.values()) == (150.0, 250.0)
  assert tuple(finetune.schedule.values()) == (350.0, 450.0)
  assert not translate.train_encoder and finetune.train_encoder
  assert mapper.imle.sample_factor == 10 and mapper.schedule.epochs == 500


def test_size_sets_all_sizes():
  data = load('translate', 'facades,size=64').data
  assert (data.resize, data.crop, data.eval_crop) == (64, (64, 64), (64, 64))


def test_feature_nets_by_name():
  features = load('translate', ',features=squeezenet1_1').features
  assert features.net == 'squeezenet1_1' and len(features.taps) == len(features.tap_weights)


@pytest.mark.parametrize(
  ('field', 'text', 'value'),
  [
    ('optimizer.generator_lr', '5e-4', 5e-4),
    ('batch_size', '16', 16),
    ('data.flip', 'true', True),
    ('data.crop', '64,128', (64, 128)),
    ('data.crop', '(64, 128)', (64, 128)),
    ('data.path', '1', '1'),
    ('schedule.total_kimg', '3', 3.0),
    ('data.rescale', '((0.5, 1.25),)', ((0.5, 1.25),)),
  ],
)
def test_fields_are_set_as_their_type(field, text, value):
  config = load('translate')
  config_lib.set_field(config, field, text)
  assert dict(config_lib.flatten(config))[field] == value


@pytest.mark.parametrize(
  ('field', 'text', 'message'),
  [
    ('optimizer.generator_rl', '1', 'did you mean optimizer.generator_lr'),
    ('nonsense_entirely', '1', 'fields are arg, batch_size'),
    ('batch_size', 'many', "batch_size='many' is not an integer"),
    ('data.flip', '1', 'is not true or false'),
    ('schedule.total_kimg', 'x', 'is not a number'),
    ('data.crop', '__import__("os")', 'is not a tuple'),
    ('data', 'x', 'is a group'),
    ('data.crop.x', '1', 'is unknown'),
  ],
)
def test_wrong_fields_are_named(field, text, message):
  with pytest.raises(ConfigError, match=message) as caught:
    config_lib.set_field(load('translate'), field, text)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('arg', 'message'),
  [
    ('facade', "data set 'facade' is unknown: use one of swatches, edges2shoes"),
    ('facades,siez=64', "option 'siez'"),
    ('facades,size=big', 'is not an integer'),
    ('facades,features=resnet', "features 'resnet' is unknown"),
  ],
)
def test_wrong_arguments_are_named(arg, message):
  with pytest.raises(ConfigError, match=message):
    load('translate', arg)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('dtype', 'float16', 'use float32 or bfloat16'),
    ('batch_size', 0, 'must be positive'),
    ('data.path', '', 'give a folder'),
    ('data.direction', 'BtoB', 'AtoB or BtoA'),
    ('data.crop', (60, 64), 'multiples of 8'),
    ('data.crop', (64,), 'a height and a width'),
    ('features.net', 'vgg19', "features.net 'vgg19' is unknown"),
    ('features.taps', ('conv9_9',), 'vgg16 has conv1_1'),
    ('features.tap_weights', (1.0,), 'one weight a tap'),
    ('loss.gan', -1.0, 'not negative'),
    ('every.log', 0, 'must be positive'),
    ('profile', (3,), 'the first and the last step'),
    ('profile', (3, 2), 'the first and the last step'),
    ('profile', (0, 2), 'the first and the last step'),
  ],
)
def test_values_that_do_not_fit_are_named(field, value, message):
  config = load('translate', 'facades')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ConfigError, match=message) as caught:
    config_lib.validate(config)
  assert '\n' not in str(caught.value)


def test_a_configuration_survives_its_file(tmp_path):
  config = load('translate', 'facades,size=64')
  config_lib.save(config, tmp_path)
  assert config_lib.flatten(config_lib.read(tmp_path)) == config_lib.flatten(config)
  with pytest.raises(RunError, match='is not the folder of a trained stage'):
    config_lib.read(tmp_path / 'elsewhere')


def test_the_next_stage_takes_over_data_and_networks():
  before = load('pretrain', 'facades,size=64,features=squeezenet1_1')
  before.data.path = '/my/pictures'
  before.model.encoder_width = 24
  before.features.weights = 'random'
  after = config_lib.following('translate', before)
  assert after.data.path == '/my/pictures' and after.data.crop == (64, 64)
  assert after.data.rescale == ((0.5, 1.25), (0.25, 1.5))
  assert after.model.encoder_width == 24 and after.model.generator_width == 32
  assert after.features.net == 'squeezenet1_1' and len(after.features.tap_weights) == 5
  assert after.features.weights == 'random' and after.stage == 'translate'


def test_no_such_file():
  with pytest.raises(ConfigError, match='no such configuration file'):
    config_lib.load('configs/nothing.py:facades')
