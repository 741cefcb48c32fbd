"""Fields are converted to their types; invalid ones give a one-line error with a suggestion."""

import math

from ml_collections import ConfigDict
import pytest

from step_jax import config as config_lib
from step_jax import methods
from step_jax.errors import ConfigError, RunError

# Tests may register stages of their own.
STAGES = list(filter(config_lib.is_ours, methods.STAGES))


def load(stage, arg=''):
  return config_lib.load(f'{config_lib.stage_file(stage)}:{arg}')


@pytest.mark.parametrize('stage', STAGES)
@pytest.mark.parametrize('name', config_lib.DATASETS)
def test_every_stage_of_every_data_set_is_valid(stage, name):
  config = load(stage, name)
  methods.validate(config)
  assert config.stage == stage and config.arg == name


def test_data_sets_have_the_settings_of_the_original():
  facades = load('translate', 'facades').data
  assert facades.direction == 'BtoA' and facades.rescale == ((0.5, 1.25), (0.25, 1.5))
  assert facades.crop == (256, 256) and facades.eval_crop == (256, 256)
  assert load('translate', 'edges2shoes').data.direction == 'AtoB'
  assert load('translate', 'night2day').data.rescale == ((0.5, 1.25),)
  assert load('translate', 'maps').data.eval_crop == (512, 512)
  needle = load('pretrain', 'space_needle_timelapse')
  assert dict(needle.mining) == {
    'num_nearest': 15,
    'num_farthest': 78,
    'projection': 0,
    'tap_weights': 'equal',
  }
  assert needle.data.scene and needle.data.direction == 'BtoA'


def test_defaults_of_the_original():
  stages = ('pretrain', 'translate', 'finetune', 'mapper')
  pretrain, translate, finetune, mapper = (load(stage, 'facades') for stage in stages)
  assert pretrain.batch_size == 12 and translate.batch_size == 8 and mapper.batch_size == 64
  assert dict(pretrain.mining) == {
    'num_nearest': 5,
    'num_farthest': 13,
    'projection': 0,
    'tap_weights': 'equal',
  }
  assert dict(pretrain.loss) == {'triplet': 1.0, 'z_l2': 0.01, 'margin': 0.1}
  on = {name: weight for name, weight in translate.loss.items() if weight}
  assert on == {
    'recon_perceptual': 0.02,
    'gan': 1.0,
    'd_direct': 1.0,
    'z_l2': 0.01,
    'adversarial': 'least_squares',
  }
  assert not translate.model.spectral_norm
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


@pytest.mark.parametrize('name', sorted({methods.of_stage(stage)[0].name for stage in STAGES}))
def test_presets_are_settings_of_their_method(name):
  method = methods.METHODS[name]
  assert not method.presets.keys() & config_lib.DATASETS.keys()
  for preset, settings in method.presets.items():
    assert settings.meaning and settings.fields.keys() <= {stage.name for stage in method.stages}
    for stage in method.stages:
      config = load(stage.name, f'facades,preset={preset}')
      values = dict(config_lib.flatten(config))
      assert settings.fields.get(stage.name, {}).items() <= values.items()
      config_lib.validate(config)


def test_images_by_path_or_name():
  parse = config_lib.Source.parse
  assert parse('some/a=b') == config_lib.Source('some/a=b')
  assert parse('facades') == config_lib.Source('', 'facades')
  assert parse('facades=f') == config_lib.Source('f', 'facades')
  with pytest.raises(ConfigError, match="data set 'facade' is unknown: did you mean facades"):
    parse('facade=f')


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
    ('schedule.total_kimg', 'x', 'is not a finite number'),
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
    ('facade', "data set 'facade' is unknown: did you mean facades"),
    ('nothing', "data set 'nothing' is unknown: use one of swatches, edges2shoes"),
    ('facades,preset=munit_p', "preset 'munit_p' is unknown: did you mean munit_p_v"),
    ('facades,siez=64', "option 'siez'"),
    ('facades,size=big', 'is not an integer'),
    ('facades,features=resnet', "features 'resnet' is unknown"),
  ],
)
def test_wrong_arguments_are_named(arg, message):
  with pytest.raises(ConfigError, match=message):
    load('translate', arg)


VALUES = [
  ('translate', 'dtype', 'float16', 'must be float32 or bfloat16'),
  ('translate', 'batch_size', 0, 'must be at least 1'),
  ('translate', 'batch_size', 2.5, 'must be an integer'),
  ('translate', 'seed', -1, 'must be at least 0 and below'),
  ('translate', 'seed', 2**32, 'below 4294967296'),
  ('translate', 'eval_pictures', 0, 'must be at least 1'),
  ('translate', 'ema_decay', 1.0, 'at least 0 and below 1'),
  ('translate', 'stage', 'munit', "no stage is called 'munit': there are pretrain"),
  ('translate', 'data.path', '', 'give a folder'),
  ('translate', 'data.direction', 'BtoB', 'AtoB or BtoA'),
  ('translate', 'data.layout', 'both', 'auto or side_by_side or'),
  ('translate', 'data.val_fraction', 1.0, 'above 0 and below 1'),
  ('translate', 'data.val_fraction', 0.0, 'above 0 and below 1'),
  ('translate', 'data.crop', (60, 64), 'multiples of 8'),
  ('translate', 'data.crop', (64,), 'a height and a width'),
  ('translate', 'data.crop', (8, 8), 'at least 16'),
  ('pretrain', 'data.crop', (0, 0), 'at least 16'),
  ('translate', 'data.eval_crop', (0, 64), 'at least 16, or 0, 0'),
  ('translate', 'data.rescale', (0.5, 1.25), 'pairs, each a probability and a factor'),
  ('translate', 'data.rescale', ((0.5, 0.9),), 'factor of at least 1'),
  ('translate', 'data.rescale', ((1.5, 2),), 'a probability'),
  ('translate', 'features.net', 'vgg', 'vgg16 or vgg19 or squeezenet1_1 or alexnet'),
  ('translate', 'features.taps', (), 'one or more texts'),
  ('translate', 'features.taps', ('conv9_9',), 'vgg16 has conv1_1'),
  ('translate', 'features.tap_weights', (1.0,), 'one weight per tap'),
  ('translate', 'features.tap_weights', ('a',) * 5, 'numbers, each at least 0'),
  ('translate', 'model.encoder_width', 0, 'must be at least 1'),
  ('translate', 'model.z_dim', -1, 'must be at least 0'),
  ('translate', 'model.z_dim', 0, 'loss.z_l2=0.01: must be 0 if model.z_dim is 0'),
  ('pretrain', 'model.z_dim', 0, 'no style encoder to pre-train.*train the stage translate'),
  ('mapper', 'model.z_dim', 0, 'no mapper: train the stage translate alone'),
  ('mapper', 'model.mapper_hidden', (8, 0), 'integers, each at least 1'),
  ('pretrain', 'mining.projection', -1, 'must be at least 0'),
  ('translate', 'loss.gan', -1.0, 'must be at least 0'),
  ('translate', 'optimizer.b2', 1.0, 'at least 0 and below 1'),
  ('translate', 'schedule.total_kimg', 0.0, 'must be at least 0.001'),
  ('mapper', 'schedule.epochs', 0, 'must be at least 1'),
  ('mapper', 'imle.decay', 1.5, 'above 0 and at most 1'),
  ('translate', 'every.log', 0, 'must be at least 1'),
  ('translate', 'profile', (5,), 'a first and a last step, such as 100,110'),
  ('translate', 'profile', (5, 4), 'a first and a last step, such as 100,110'),
]


@pytest.mark.parametrize(('stage', 'field', 'value', 'message'), VALUES)
def test_values_that_do_not_fit_are_named(stage, field, value, message, tmp_path):
  config = load(stage, 'facades')
  with pytest.raises(ConfigError, match=message) as caught:
    methods.train(with_field(config, field, value), tmp_path)
  assert '\n' not in str(caught.value) and field.rpartition('.')[2] in str(caught.value)
  assert not list(tmp_path.iterdir())


def with_field(config, field, value):
  """A copy with a field of any type, as a user file with its own `ConfigDict` may have."""
  return ConfigDict(_replaced(config.to_dict(), field.split('.'), value))


def _replaced(tree, path, value):
  name, *rest = path
  return {**tree, name: _replaced(tree[name], rest, value) if rest else value}


@pytest.mark.parametrize('stage', STAGES)
def test_every_field_of_every_stage_has_a_range(stage):
  """Fields accept no negative, NaN or infinite numbers, and no other types."""
  config = load(stage, 'facades')
  methods.validate(config)
  for name, value in config_lib.flatten(config):
    wrong = [None, ConfigDict({'a': 1})]
    wrong += [7, ('x',)] if isinstance(value, bool | str) else ['x', True]
    if isinstance(value, float | int) and not isinstance(value, bool):
      wrong += [-1, -1e-6, math.nan, math.inf, -math.inf]
    if isinstance(value, tuple):
      wrong += [(number,) * len(value or 'xx') for number in (-1, math.nan, math.inf, 'x', None)]
    if config_lib.stage_module(stage).FIELDS[name].rule.choices:
      wrong += ['x', '']
    for bad in wrong:
      with pytest.raises(ConfigError) as caught:
        methods.validate(with_field(config, name, bad))
      message = str(caught.value)
      assert name in message and '\n' not in message, (name, bad, message)


BY_HAND = """
from ml_collections import ConfigDict
from step_jax import config as config_lib

def get_config(arg=None):
  stock = config_lib.load(config_lib.stage_file('translate'))
"""


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    ('stock.loss.recon_11 = 1.0; return stock', 'Did you mean "recon_l1"'),
    ("stock['sed'] = 1; return stock", 'Did you mean "seed"'),
    ('stock.losss.gan = 2.0; return stock', 'Did you mean "loss"'),
    ("stock.batch_size = 'many'; return stock", "Could not override field 'batch_size'"),
    (
      "return ConfigDict({**stock.to_dict(), 'optimiser': {'b1': 0.5}})",
      "config field 'optimiser.b1' is unknown: did you mean optimizer.b1?",
    ),
    (
      "d = stock.to_dict(); d['loss']['recon_11'] = 1.0; return ConfigDict(d)",
      "config field 'loss.recon_11' is unknown: did you mean loss.recon_l1?",
    ),
    ("d = stock.to_dict(); del d['ema_decay']; return ConfigDict(d)", 'ema_decay is missing'),
    ('config = stock.unlock(); config.loss.recon_11 = 1.0; return config', 'mean loss.recon_l1?'),
  ],
)
def test_a_misspelt_field_in_a_user_file_is_an_error(lines, message, tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(f'{BY_HAND}  {lines}\n')
  with pytest.raises(ConfigError) as caught:
    config_lib.load(str(file))
  assert message in str(caught.value) and '\n' not in str(caught.value)
  assert str(caught.value).startswith(f'{file}: ')


def test_a_misspelt_field_set_in_python_is_an_error(tmp_path):
  config = load('translate', 'facades')
  with pytest.raises(AttributeError, match='Did you mean "recon_l1"'):
    config.loss.recon_11 = 1.0
  config.unlock()
  config.loss.recon_11 = 1.0
  with pytest.raises(ConfigError, match='did you mean loss.recon_l1'):
    methods.train(config, tmp_path)


def test_errors_of_user_code_are_not_changed(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text('def get_config(arg=None):\n  return {}["x"]\n')
  with pytest.raises(KeyError):
    config_lib.load(str(file))


DECLARED = """
from step_jax import config as config_lib
from step_jax import fields

FIELDS = fields.shared('data.path', stage='declared', method='declared', best_metric='loss') | {
  'imle.noise': fields.Field(0.5, 'of something else', fields.number('above 0')),
}

def get_config(arg=None):
  config = config_lib.make(FIELDS, arg)
  with config.unlocked():
"""


def test_a_user_defined_method_can_declare_fields(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(f'{DECLARED}    pass\n  return config\n')
  config = config_lib.load(f'{file}:swatches')
  assert config.imle.noise == 0.5 and config.data.path == 'swatches' and config.batch_size == 8
  config_lib.validate(config)
  config.imle.noise = 0.0
  with pytest.raises(ConfigError, match='imle.noise=0.0: must be above 0'):
    config_lib.validate(config)
  file.write_text(f'{DECLARED}    config.imle.nose = 1.0\n  return config\n')
  with pytest.raises(ConfigError, match="'imle.nose' is unknown: did you mean imle.noise"):
    config_lib.load(str(file))


def test_a_user_defined_method_has_its_own_fields(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    f'{BY_HAND}  stock.unlock()\n  stock.method = "mine"\n  stock.x = 1\n  return stock'
  )
  config = config_lib.load(str(file))
  config.data.path = 'swatches'
  config_lib.validate(config)
  config.every.log = 0
  with pytest.raises(ConfigError, match='every.log=0: must be at least 1'):
    config_lib.validate(config)


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
