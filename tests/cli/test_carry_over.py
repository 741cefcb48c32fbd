"""A stage inherits the settings of the stage that it starts from, except those set by options."""

import pytest

from step_jax import cli
from step_jax import config as config_lib
from step_jax.cli import training
from step_jax.errors import ConfigError


@pytest.fixture
def before(tmp_path):
  """The work directory of a pre-trained run with fields that no option sets."""
  keep(tmp_path / 'run/pretrain', '/my/pictures')
  return tmp_path / 'run'


def keep(folder, path, arg='size=64,features=squeezenet1_1', **fields):
  config = config_lib.load(f'{config_lib.stage_file(folder.name)}:{arg}')
  config.data.path, config.data.direction, config.data.val_fraction = path, 'BtoA', 0.2
  config.features.weights, config.model.encoder_width = 'random', 24
  config.data.crop = (32, 48)
  config.update_from_flattened_dict(fields)
  folder.mkdir(parents=True)
  config_lib.save(config, folder)


def configure(workdir, *options, stage='translate'):
  arguments = ['train', stage, '--workdir', str(workdir), *map(str, options)]
  return training.train_config(cli.parse(arguments))


def test_options_that_are_repeated_change_nothing(before):
  options = ('--data', '/my/pictures', '--size', 64, '--features', 'squeezenet1_1')
  again = configure(before, *options)
  assert config_lib.flatten(again) == config_lib.flatten(configure(before))
  assert again.data.direction == 'BtoA' and again.data.val_fraction == 0.2
  assert again.data.crop == (32, 48) and again.model.encoder_width == 24
  assert again.features.weights == 'random'


def test_the_bundled_network_is_the_default(before, tmp_path, monkeypatch):
  fresh = tmp_path / 'fresh', '--data', '/my/pictures'
  assert configure(*fresh, stage='pretrain').features.net == 'squeezenet1_1'
  assert configure(*fresh, '--preset', 'facades', stage='pretrain').arg == (
    'facades,features=squeezenet1_1'
  )
  # A published recipe uses its own net and no other.
  parity = configure(*fresh, '--preset', 'parity', stage='superstylenet')
  assert parity.features.net == 'vgg19'
  for option in ('--features=vgg16', '--weights=/net.npz', '--config.features.taps=conv1_2'):
    assert configure(*fresh, option, stage='pretrain').features.net == 'vgg16'
  keep(tmp_path / 'other/pretrain', '/my/pictures', 'size=64', **{'features.weights': ''})
  assert configure(tmp_path / 'other').features.net == 'vgg16'
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path))
  (tmp_path / 'vgg16.safetensors').touch()
  assert configure(*fresh, stage='pretrain').features.net == 'vgg16'


def test_an_option_changes_only_its_fields(before):
  larger = configure(before, '--size', 128)
  assert larger.data.resize == 128 and larger.data.crop == larger.data.eval_crop == (128, 128)
  assert larger.data.direction == 'BtoA' and larger.features.net == 'squeezenet1_1'
  assert larger.data.path == '/my/pictures' and larger.arg == ',size=128,features=squeezenet1_1'
  other = configure(before, '--features', 'alexnet')
  assert other.features.net == 'alexnet' and len(other.features.tap_weights) == 5
  assert other.features.weights == '' and other.data.crop == (32, 48)
  elsewhere = configure(before, '--data', '/others')
  assert elsewhere.data.path == '/others' and elsewhere.data.direction == 'BtoA'
  named = configure(before, '--preset', 'facades', '--data', '/others', '--weights', '/net.npz')
  assert named.data.rescale == ((0.5, 1.25), (0.25, 1.5)) and named.data.path == '/others'
  assert named.data.resize == 64 and named.features.weights == '/net.npz'
  assert config_lib.flatten(named) == config_lib.flatten(
    configure(before, '--data', 'facades=/others', '--weights', '/net.npz')
  )


def test_presets_of_the_method_carry_over(before):
  keep(before / 'translate', '/my/pictures')
  munit = configure(before, '--preset', 'munit_p_v2', '--data', '/mine')
  assert munit.loss.z_kl == 0.01 and munit.init_from == '' and munit.data.path == '/mine'
  config_lib.save(munit, before / 'translate')
  later = configure(before, stage='finetune')
  assert later.loss.z_kl == 0.01 and later.init_from == 'translate' and later.data.path == '/mine'


def test_a_preset_of_the_first_stage_is_that_of_all(tmp_path):
  options = '--data', '/mine', '--features', 'squeezenet1_1', '--preset', 'small_images'
  configs = {}
  for stage in ('pretrain', 'translate', 'finetune'):
    configs[stage] = configure(tmp_path, *options, stage=stage)
    (tmp_path / stage).mkdir()
    config_lib.save(configs[stage], tmp_path / stage)
    options = ()
  translate, finetune = configs['translate'], configs['finetune']
  assert configs['pretrain'].model.encoder_width == finetune.model.encoder_width == 32
  assert translate.model.generator_width == finetune.model.generator_width == 16
  assert translate.loss == finetune.loss and translate.loss.recon_l1 > 0
  assert translate.optimizer.generator_lr == finetune.optimizer.generator_lr == 6e-3


def test_a_known_data_set_has_a_default_folder(before, tmp_path):
  assert configure(before, '--data', 'facades').data.path == 'data/facades'
  keep(tmp_path / 'other/pretrain', '/elsewhere/facades', 'facades,size=64')
  assert configure(tmp_path / 'other').data.path == '/elsewhere/facades'
  assert configure(tmp_path / 'other', '--data', 'facades').data.path == 'data/facades'


def test_settings_are_those_of_the_stage_that_is_started_from(before, tmp_path):
  keep(tmp_path / 'other/pretrain', '/others', **{'model.encoder_width': 16})
  other = configure(before, '--config.init_from=../other/pretrain')
  assert other.data.path == '/others' and other.model.encoder_width == 16
  absolute = configure(tmp_path / 'new', f'--config.init_from={tmp_path / "other/pretrain"}')
  assert absolute.data.path == '/others'
  with pytest.raises(ConfigError, match='--data is missing'):
    configure(before, '--config.init_from=')
  with pytest.raises(ConfigError, match='--data is missing'):
    configure(before, '--config.init_from=../none/pretrain')
  scratch = configure(before, '--config.init_from=', '--data', '/others')
  assert scratch.data.direction == 'AtoB' and scratch.model.encoder_width == 64
