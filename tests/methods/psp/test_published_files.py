"""Published files on the command line: import as a run, and conversion of weights."""

import functools

import jax
import numpy as np
import pytest
import torch_checkpoints as checkpoints

from step_jax import cli, images, methods
from step_jax.errors import WeightsError
from step_jax.methods.psp import encoder_state, irse, published, resnet, stylegan2_state
from step_jax.methods.psp import run as psp_run
from step_jax.weights import readers


def by_pytorch(path, tree):
  torch = pytest.importorskip('torch', reason="PyTorch is missing: pip install -e '.[bench]'")

  def tensors(value):
    if isinstance(value, dict):
      return {key: tensors(item) for key, item in value.items()}
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

  torch.save(tensors(tree), path)
  return path


WRITERS = {'torch.save': by_pytorch, 'bytes': checkpoints.write}


@pytest.fixture(scope='module')
def generator():
  """State dict, mean style, and images of styles from the converted module."""
  state = checkpoints.small_generator()
  module, variables = stylegan2_state.generator_from_torch(state)
  draw = jax.jit(functools.partial(module.apply, variables, method='synthesize'))
  mean = np.random.RandomState(3).standard_normal(24).astype(np.float32)
  return state, mean, lambda styles: np.asarray(images.to_uint8(draw(styles)))


@pytest.mark.parametrize('writer', WRITERS)
def test_stylegan2(writer, generator, tmp_path):
  state, mean, draw = generator
  tree = {'g_ema': state, 'latent_avg': mean, 'args': None}
  file = WRITERS[writer](tmp_path / 'x.pt', tree)
  workdir = tmp_path / 'run'
  assert cli.main(['weights', 'import-stylegan2', str(file), '--workdir', str(workdir)]) == 0
  run = psp_run.load(workdir / 'stylegan2')
  np.testing.assert_array_equal(run.params['mean_style'], mean)
  styles = run.draw(2, seed=1)
  np.testing.assert_allclose(run.generate(styles).astype(int), draw(styles), atol=1)


@pytest.mark.parametrize('writer', WRITERS)
def test_psp(writer, generator, tmp_path):
  state, mean, draw = generator
  encoder = checkpoints.small_encoder(widths=(16, 32, 64, 128))
  tree = {**checkpoints.psp_tree(state, encoder), 'latent_avg': np.tile(mean, (8, 1))}
  file = WRITERS[writer](tmp_path / 'x.pt', tree)
  workdir = tmp_path / 'run'
  assert cli.main(['weights', 'import-psp', str(file), '--workdir', str(workdir)]) == 0
  picture = np.random.RandomState(4).randint(0, 256, (64, 64, 3), np.uint8)
  module, variables = encoder_state.encoder_from_torch(encoder)
  codes = module.apply(variables, images.to_float(picture[None]), train=False) + mean
  run = methods.load(workdir)
  np.testing.assert_allclose(run.encode(picture), codes[0], rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(run.translate(picture).astype(int), draw(codes)[0], atol=1)


def test_other_files_are_a_one_line_error(tmp_path, capsys):
  file = tmp_path / 'x.pt'
  file.write_bytes(b'PK\3\4 no archive')
  for action in ('import-stylegan2', 'import-psp'):
    assert cli.main(['weights', action, str(file), '--workdir', str(tmp_path / 'run')]) == 2
    assert str(file) in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


@pytest.fixture
def store(tmp_path, monkeypatch):
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'store'))
  narrow = irse.FaceEmbedding((1, 1, 1, 1), (16, 32, 48, 64))
  monkeypatch.setitem(published.NETWORKS, 'arcface_ir_se50', narrow)
  published._shapes.cache_clear()
  yield tmp_path / 'store'
  published._shapes.cache_clear()


def same(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_face_embeddings_are_converted(store, tmp_path, capsys):
  state = checkpoints.small_face_embedding()
  file = checkpoints.write(tmp_path / 'model_ir_se50.pth', state)
  with pytest.raises(WeightsError, match=r'step-jax weights convert FILE'):
    published.find('identity')
  assert cli.main(['weights', 'convert', str(file)]) == 0
  converted = store / 'arcface_ir_se50.safetensors'
  assert capsys.readouterr().out.strip() == str(converted)
  assert published.find('identity') == converted
  module, variables = published.read_face_embedding(converted)
  wanted = published.read_face_embedding(file)
  assert module == wanted[0]
  same(variables, wanted[1])
  with pytest.raises(WeightsError, match='holds arcface_ir_se50; convert the original'):
    published.read_resnet50(converted)
  # A different network, by name or by size.
  assert cli.main(['weights', 'convert', str(file), '--name', 'moco_resnet50']) == 2
  assert 'holds arcface_ir_se50, not moco_resnet50' in capsys.readouterr().err
  plain = {k: v for k, v in state.items() if '.res_layer.5.' not in k}
  checkpoints.write(file, plain)
  assert cli.main(['weights', 'convert', str(file)]) == 2
  assert 'another size than curricularface_ir101' in capsys.readouterr().err
  # Files that were tampered with.
  tensors, metadata = readers.read(converted)
  assert metadata['source'] == 'model_ir_se50.pth' and len(tensors) > 60
  converted.write_bytes(converted.read_bytes().replace(b'params/fc/bias', b'params/fc/bxas'))
  with pytest.raises(WeightsError, match='is no arcface_ir_se50'):
    published.read_face_embedding(converted)


@pytest.mark.parametrize('prefix', ['', 'module.encoder_q.'])
def test_resnet50_is_converted(prefix, store, tmp_path, capsys):
  """Files of torchvision and of MoCo, without their classifiers."""
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  init = functools.partial(resnet.ResNet50().init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), image)
  state = {}
  for entry in encoder_state._resnet50():
    leaf = functools.reduce(lambda tree, name: tree[name], entry.path.split('/'), shapes)
    shape = leaf.shape if len(leaf.shape) == 1 else tuple(np.array(leaf.shape)[[3, 2, 0, 1]])
    state[f'{prefix}{entry.key}'] = np.full(shape, 0.5, np.float32)
  state[f'{prefix}fc.bias'] = np.zeros(3, np.float32)
  tree = {'state_dict': state, 'epoch': 200} if prefix else state
  file = checkpoints.write(tmp_path / 'x.pth', tree)
  assert cli.main(['weights', 'convert', str(file)]) == 0
  name = 'moco_resnet50' if prefix else 'resnet50'
  module, variables = published.read_resnet50(store / f'{name}.safetensors')
  assert module == resnet.ResNet50()
  assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda x: x.shape, shapes)
