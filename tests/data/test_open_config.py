"""All commands open the data of a configuration in the same way, and report what does not fit."""

import pathlib
import re
import types

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import tiny

import step_jax
from step_jax import data, methods
from step_jax.data import labels
from step_jax.errors import DataError, RunError
from step_jax.evaluate import session
from step_jax.methods.step import galleries
from step_jax.methods.step.mining import table
from step_jax.methods.step.page import run_pictures
from step_jax.report import galleries as report_galleries
from step_jax.reproduce import run as reproduce
from step_jax.train import checkpoint, mesh, stage
from step_jax.train import state as state_lib

PACKAGE = pathlib.Path(step_jax.__file__).parent


class Opened(Exception):
  """Stand-in for a data set."""


@pytest.mark.parametrize(
  'open_run',
  [
    lambda run: session.open_run(run.folder),
    lambda run: galleries.make(run),
    lambda run: report_galleries.make(run),
    lambda run: reproduce._examples(run.folder, run.config),
    lambda run: run_pictures.load(run),
  ],
)
def test_settings_apply_to_all(open_run, monkeypatch, tmp_path):
  config = tiny.make_config('translate', tmp_path, **{'data.unreadable': 'skip'})
  config.update_from_flattened_dict({'data.val_fraction': 0.4, 'data.resize': 24})
  run = types.SimpleNamespace(method='step', config=config, folder=tmp_path)

  def opened(*settings):
    raise Opened(settings)

  monkeypatch.setattr(data, 'open_data', opened)
  method = types.SimpleNamespace(hook=lambda name: lambda folder, which: run)
  monkeypatch.setattr(methods, 'find', lambda workdir: (method, tmp_path))
  with pytest.raises(Opened) as found:
    open_run(run)
  assert found.value.args == ((str(tmp_path), 'auto', 0.4, 24, 'skip', labels.NONE),)


def test_nothing_else_opens_the_data_of_a_configuration():
  calls = [
    (path.relative_to(PACKAGE).as_posix(), line)
    for path in PACKAGE.rglob('*.py')
    for line in path.read_text('utf-8').splitlines()
    if re.search(r'\bopen_data\(|\bPairSet\(', line) and not path.is_relative_to(PACKAGE / 'data')
  ]
  assert calls and all(
    path.endswith('/quickstart.py') and "'swatches" in line for path, line in calls
  )


def test_held_out_images_are_opened_in_one_way():
  """Only training, and code that reads training images, opens data without checking the run."""
  others = {
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob('*.py')
    if 'open_config(' in path.read_text('utf-8') and not path.is_relative_to(PACKAGE / 'data')
  }
  assert {name for name in others if not re.search('/stage|/quickstart', name)} <= {
    'train/run.py', 'methods/step/run.py'
  }  # fmt: skip


def test_single_images_are_not_pairs(tmp_path):
  for i in range(3):
    Image.new('RGB', (8, 8)).save(tmp_path / f'{i}.png')
  config = tiny.make_config('translate', tmp_path, **{'data.layout': 'unpaired'})
  assert not data.open_config(config.data).paired
  with pytest.raises(DataError, match='holds lone pictures'):
    data.open_config(config.data, paired=True)


def test_a_small_validation_image_is_named_before_mining(tmp_path, monkeypatch):
  for split, count, width in (('train', 4, 20), ('val', 4, 20), ('val', 1, 15)):
    (tmp_path / 'in' / split).mkdir(parents=True, exist_ok=True)
    for i in range(count):
      image = np.zeros((16, 2 * width, 3), np.uint8)
      Image.fromarray(image).save(tmp_path / 'in' / split / f'{width}_{i}.png')
  monkeypatch.setattr(table, 'mine', None)
  with pytest.raises(DataError, match=r'val/15_0.png: its width of 15 px is below the crop of 16'):
    tiny.train('pretrain', tmp_path / 'in', tmp_path / 'run')


def test_a_stage_without_a_common_network_is_named(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path / 'mapper')
  checkpoints.save(1, {'params': {'mapper': jnp.zeros(1)}})
  checkpoints.close()
  config = tiny.make_config('translate', 'x', init_from='mapper')
  params = {'style_encoder': jnp.zeros(1)}
  step = state_lib.TrainStep(lambda key: state_lib.create(params, {}), None)
  with pytest.raises(RunError, match='holds none of the networks of this stage') as error:
    stage.warm_start(config, tmp_path, step, mesh.make_mesh())
  assert '\n' not in str(error.value)
