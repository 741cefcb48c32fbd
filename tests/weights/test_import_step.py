"""Checkpoints of the original are read without TensorFlow, and give the same outputs."""

import functools

import golden_vectors as golden
import jax
import numpy as np
import pytest
import tf_bundle

import step_jax
from step_jax import cli
from step_jax.errors import RunError, WeightsError
from step_jax.methods.step import functions, networks
from step_jax.methods.step.original import tf_checkpoint
from step_jax.methods.step.original.import_step import import_step
from step_jax.train import mesh as mesh_lib


@pytest.fixture(scope='module')
def variables():
  return golden.draw_run()


@pytest.fixture(scope='module')
def prefix(variables, tmp_path_factory):
  path = tmp_path_factory.mktemp('original') / 'model.ckpt-1234'
  tf_bundle.write(path, variables)
  return path


def test_every_value_is_read(variables, prefix):
  found = tf_checkpoint.read(prefix)
  assert set(found) == set(variables)
  for name, tensor in found.items():
    np.testing.assert_array_equal(tensor.read(), variables[name])
  assert set(tf_checkpoint.read(prefix.with_name(f'{prefix.name}.index'))) == set(found)


def test_an_imported_run_computes_what_the_original_does(prefix, tmp_path, capsys):
  """Networks of a run imported by the command, against results of the original."""
  arguments = ['weights', 'import-step', str(prefix), '--workdir', str(tmp_path)]
  assert cli.main([*arguments, '--preset', 'facades']) == 0
  assert str(tmp_path / 'finetune') in capsys.readouterr().out
  run = step_jax.load(tmp_path)
  assert run.step == 1234 and run.config.model.skip and run.config.model.code_everywhere
  assert run.config.data.direction == 'BtoA'
  encoder, generator = networks.style_encoder(run.config), networks.generator(run.config)
  case1, case2 = golden.load('case1_style_encoder'), golden.load('case2_generator')
  encode = jax.jit(functools.partial(functions.encode, encoder))
  golden.assert_close(encode(run.params, case1['x']), case1['norm_A_z'].reshape(2, 8))
  generate = jax.jit(functools.partial(functions.generate, generator))
  made = np.asarray(generate(run.params, case2['x'], case2['z'].reshape(2, 8))).astype(int)
  expected = np.clip(np.rint(case2['full_A_y'] * 127.5 + 127.5), 0, 255)
  assert np.abs(made - expected).max() <= 1
  with pytest.raises(RunError, match='is already trained'):
    import_step(prefix, tmp_path)


def test_the_mapper_follows_with_its_codes(tmp_path):
  rng = np.random.default_rng(0)
  sizes, made = [(8, 16), (16, 16), (16, 16), (16, 8)], {}
  for i, size in enumerate(sizes):
    name = f'dense_{i}' if i else 'dense'
    made[f'{name}/kernel'] = rng.standard_normal(size).astype(np.float32)
    made[f'{name}/bias'] = rng.standard_normal(size[1]).astype(np.float32)
  tf_bundle.write(tmp_path / 'mapper', made)
  with pytest.raises(WeightsError, match='--codes'):
    import_step(tmp_path / 'mapper', tmp_path)
  codes = rng.standard_normal((70, 1, 1, 8)).astype(np.float32)
  np.save(tmp_path / 'zs_train.npy', codes)
  folder = import_step(tmp_path / 'mapper', tmp_path, codes=tmp_path / 'zs_train.npy')
  np.testing.assert_array_equal(np.load(folder / 'codes.npy'), codes.reshape(70, 8))
  from step_jax import config as config_lib
  from step_jax.train import stage

  mesh = mesh_lib.make_mesh()
  config = config_lib.read(folder)
  module = networks.mapper(config)
  noise = rng.standard_normal((5, 8)).astype(np.float32)
  like = jax.eval_shape(lambda: module.init(jax.random.key(0), noise)['params'])
  params = stage.load_networks(folder, {'params': {'mapper': like}}, mesh)['params']['mapper']
  x = noise
  for i in range(4):
    name = f'dense_{i}' if i else 'dense'
    x = x @ made[f'{name}/kernel'] + made[f'{name}/bias']
    x = np.tanh(x) if i < 3 else x
  np.testing.assert_allclose(module.apply({'params': params}, noise), x, rtol=1e-4, atol=1e-5)


def test_pretraining_becomes_its_stage(variables, tmp_path):
  own = {n: x for n, x in variables.items() if n.startswith('appearance_net')}
  tf_bundle.write(tmp_path / 'ckpt-5', {n: x for n, x in own.items() if 'Exp' not in n})
  assert import_step(tmp_path / 'ckpt-5', tmp_path / 'run').name == 'pretrain'


def test_unusable_files_are_refused_and_nothing_is_written(variables, prefix, tmp_path):
  stop = functools.partial(import_step, workdir=tmp_path / 'run')
  with pytest.raises(WeightsError, match='no such file'):
    stop(tmp_path / 'gone')
  lacking = {
    n: x for n, x in variables.items() if 'upscale_2/conv1/bias' not in n and n[:2] != 'd_'
  }
  tf_bundle.write(tmp_path / 'lacking', lacking)
  with pytest.raises(WeightsError, match='generator/decoder/up2/conv1/bias is nothing'):
    stop(tmp_path / 'lacking')
  tf_bundle.write(tmp_path / 'other', {'x': np.zeros(3, np.float32)})
  with pytest.raises(WeightsError, match='has no style_encoder'):
    stop(tmp_path / 'other')
  index = prefix.with_name(f'{prefix.name}.index').read_bytes()
  (tmp_path / 'cut.index').write_bytes(index[:-100])
  with pytest.raises(WeightsError, match='is damaged'):
    stop(tmp_path / 'cut')
  (tmp_path / 'alone.index').write_bytes(index)
  with pytest.raises(WeightsError, match='missing or cut short'):
    stop(tmp_path / 'alone')
  assert not (tmp_path / 'run').exists()
