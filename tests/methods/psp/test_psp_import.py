"""Published files: all keys of the inventory, missing parts, and damage."""

import functools
import json

import golden_vectors as golden
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import psp_vectors
import pytest
import torch_checkpoints as checkpoints

from step_jax.errors import WeightsError
from step_jax.methods.psp import (
  encoder_state,
  encoders,
  fir,
  import_weights,
  published,
  stylegan2_state,
)

INVENTORY = json.loads((psp_vectors.HERE / '22_state_dict_inventory.json').read_text())
KERNEL = np.outer(fir.TAPS, fir.TAPS).astype(np.float32)


def whole(name):
  """A state dict with all keys and shapes of the inventory; its zeros share memory."""
  state = {}
  for key, shape in INVENTORY[name].items():
    if key.endswith('.kernel'):
      state[key] = KERNEL * (1 if 'discriminator' in name else 4)
    elif key.endswith('num_batches_tracked'):
      state[key] = np.zeros((), np.int64)
    else:
      state[key] = np.broadcast_to(np.float32(0), shape)
  return state


def total(state):
  """Number of trainable values, without buffers and statistics."""
  skipped = ('running_mean', 'running_var', 'num_batches_tracked', '.kernel')
  return sum(
    x.size for k, x in state.items() if not k.endswith(skipped) and not k.startswith('noises.')
  )


# The pyramid's arrays would take a gigabyte; the vectors 15 have its keys.
@pytest.mark.parametrize(
  'name', [n for n in INVENTORY if n.split('_')[1] not in ('alex', 'gradual')]
)
def test_every_key_of_the_inventory_is_read(name):
  state = whole(name)
  read = {
    'generator': stylegan2_state.generator_from_torch,
    'discriminator': stylegan2_state.discriminator_from_torch,
    'encoder': encoder_state.encoder_from_torch,
    'arcface': encoder_state.face_embedding_from_torch,
    'curricular': encoder_state.face_embedding_from_torch,
  }[name.split('_')[0]]
  _, variables = read(state)
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == total(state)


def test_the_pyramid_encoder_of_the_inventory():
  """Its keys and shapes, without the arrays."""
  module = encoders.GradualStyleEncoder(num_styles=18)
  state = whole('encoder_gradual_n18_rgb')
  init = functools.partial(module.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == total(state) == 267_136_704


@pytest.fixture(scope='module')
def tiny():
  vectors = psp_vectors.load('04_generator_tiny')
  judge = psp_vectors.stored(psp_vectors.load('07_discriminator_tiny'))
  return vectors, psp_vectors.stored(vectors), judge


def draw(own):
  run = functools.partial(own.generator.apply, method='synthesize')
  return jax.jit(run)


@pytest.mark.parametrize('legacy', [False, True])
def test_rosinality_files(tiny, tmp_path, caplog, legacy):
  vectors, state, judge = tiny
  filters = {'to_rgbs.0.upsample.kernel': 4 * KERNEL}
  mean = vectors['trunc_latent'][0]
  tree = {
    'g': state,
    'd': judge,
    'g_ema': {**state, **filters},
    'latent_avg': mean,
    'g_optim': {'state': {}, 'param_groups': [0.1]},
    'args': checkpoints.Namespace(iter=800_000, path='data'),
    'ada_aug_p': 0.0,
  }
  own = import_weights.read_stylegan2(checkpoints.write(tmp_path / 'x.pt', tree, legacy))
  assert not caplog.records and own.discriminator.channels == (16, 16, 12, 8)
  np.testing.assert_array_equal(own.mean_style, mean)
  image = draw(own)(own.generator_variables, vectors['w_plus'])
  golden.assert_close(image, vectors['y_wplus_nhwc'])


def test_missing_parts_of_old_files_are_generated_and_logged(tiny, tmp_path, caplog):
  _, state, _ = tiny
  old = {k: v for k, v in state.items() if not k.startswith('noises.')}
  own = import_weights.read_stylegan2(checkpoints.write(tmp_path / 'x.pt', {'g_ema': old}))
  assert own.discriminator is None and own.mean_style.shape == (24,)
  assert 'no constant noise' in caplog.text and 'no mean style' in caplog.text


def to_ada(state, judge, mean):
  """The tiny networks with the names of StyleGAN2-ADA."""
  layer = {
    'conv.weight': ('weight', lambda x: x[0]),
    'conv.modulation.weight': ('affine.weight', lambda x: x),
    'conv.modulation.bias': ('affine.bias', lambda x: x),
    'noise.weight': ('noise_strength', lambda x: x.reshape(())),
    'activate.bias': ('bias', lambda x: x),
    'bias': ('bias', lambda x: x.reshape(-1)),
  }
  scopes = {'conv1': 'b4.conv1', 'to_rgb1': 'b4.torgb'}
  for i, side in enumerate((8, 16, 32)):
    scopes[f'convs.{2 * i}'] = f'b{side}.conv0'
    scopes[f'convs.{2 * i + 1}'] = f'b{side}.conv1'
    scopes[f'to_rgbs.{i}'] = f'b{side}.torgb'
  found = {'mapping.w_avg': mean, 'synthesis.b4.const': state['input.input'][0]}
  noises = [scope for key, scope in scopes.items() if 'rgb' not in key]
  for i, scope in enumerate(noises):
    found[f'synthesis.{scope}.noise_const'] = state[f'noises.noise_{i}'][0, 0]
  for key, scope in scopes.items():
    for leaf, (name, change) in layer.items():
      if f'{key}.{leaf}' in state:
        found[f'synthesis.{scope}.{name}'] = change(state[f'{key}.{leaf}'])
    found[f'synthesis.{scope}.resample_filter'] = KERNEL
  for i in range(3):
    for leaf in ('weight', 'bias'):
      found[f'mapping.fc{i}.{leaf}'] = state[f'style.{i + 1}.{leaf}']
  names = {
    'convs.0.0': 'b32.fromrgb',
    'convs.0.1': 'b32.fromrgb',
    'final_conv.0': 'b4.conv',
    'final_conv.1': 'b4.conv',
    'final_linear.0': 'b4.fc',
    'final_linear.1': 'b4.out',
  }
  for i, side in enumerate((32, 16, 8), start=1):
    block = f'convs.{i}'
    names |= {f'{block}.conv1.{j}': f'b{side}.conv0' for j in range(2)}
    names |= {f'{block}.conv2.{j}': f'b{side}.conv1' for j in (1, 2)}
    names[f'{block}.skip.1'] = f'b{side}.skip'
  other = {}
  for key, array in judge.items():
    scope, leaf = key.rsplit('.', 1)
    other[f'{names[scope]}.{leaf}'] = array
  return found, other


def test_ada_pickles(tiny, tmp_path, caplog):
  vectors, state, judge = tiny
  mean = vectors['trunc_latent'][0]
  generator_state, judge_state = to_ada(state, judge, mean)
  path = tmp_path / 'x.pkl'
  checkpoints.write_ada(path, {'G_ema': generator_state, 'D': judge_state})
  own = import_weights.read_stylegan2(path)
  assert not caplog.records
  np.testing.assert_array_equal(own.mean_style, mean)
  same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
  same(own.generator_variables, stylegan2_state.generator_from_torch(state)[1])
  same(own.discriminator_variables, stylegan2_state.discriminator_from_torch(judge)[1])
  with pytest.raises(WeightsError, match='conditional'):
    extra = {'mapping.embed.weight': np.zeros((2, 2), np.float32)}
    checkpoints.write_ada(path, {'G_ema': {**generator_state, **extra}})
    import_weights.read_stylegan2(path)
  with pytest.raises(WeightsError, match='has none of G, D, G_ema'):
    import_weights.read_stylegan2(checkpoints.write_ada(path, {}))


def test_psp_files(tiny, tmp_path):
  vectors, state, _ = tiny
  tree = checkpoints.psp_tree(state, checkpoints.small_encoder())
  rows = np.random.RandomState(0).standard_normal((8, 24)).astype(np.float32)
  path = tmp_path / 'x.pt'
  own = import_weights.read_psp(checkpoints.write(path, {**tree, 'latent_avg': rows}))
  assert own.encoder == encoders.GradualStyleEncoder(
    8, 64, (1, 1, 1, 1), (16, 32, 48, 64), style_dim=24
  )
  assert own.options['output_size'] == 32 and own.options['none'] is None
  np.testing.assert_array_equal(own.mean_style, rows)
  image = draw(own)(own.generator_variables, vectors['w_plus'])
  golden.assert_close(image, vectors['y_wplus_nhwc'])
  # Heads of one level are stacked in the order of the state dict.
  coarse = own.encoder_variables['params']['coarse']['heads']['fc']['bias']
  expected = [tree['state_dict'][f'encoder.styles.{i}.linear.bias'] for i in range(3)]
  np.testing.assert_array_equal(coarse, expected)
  # One row applies to all layers; no row belongs to an encoder that starts from 0.
  own = import_weights.read_psp(checkpoints.write(path, {**tree, 'latent_avg': rows[:1]}))
  np.testing.assert_array_equal(own.mean_style, np.tile(rows[:1], (8, 1)))
  assert import_weights.read_psp(checkpoints.write(path, tree)).mean_style is None


def test_files_that_do_not_fit_are_one_clear_error(tiny, tmp_path):
  _, state, _ = tiny
  path = tmp_path / 'x.pt'

  def refused(tree, message, read=import_weights.read_psp):
    checkpoints.write(path, tree)
    with pytest.raises(WeightsError, match=message) as error:
      read(path)
    assert str(error.value).startswith(str(path)) and '\n' not in str(error.value)

  tree = checkpoints.psp_tree(state, checkpoints.small_encoder(9))
  refused(tree, 'encoder of 9 styles and a generator of 8')
  refused(
    {
      **checkpoints.psp_tree(state, checkpoints.small_encoder()),
      'latent_avg': np.zeros((18, 24), np.float32),
    },
    '18',
  )
  refused({'g_ema': state}, 'has no state_dict')
  refused({'state': state}, 'has no g_ema', import_weights.read_stylegan2)
  wrong = np.zeros(8, np.float32)
  refused({'g_ema': state, 'latent_avg': wrong}, 'mean style', import_weights.read_stylegan2)
  with pytest.raises(WeightsError, match='no such|cannot read'):
    import_weights.read_psp(tmp_path / 'none.pt')


def test_repeatedly_nested_dicts_are_refused(tmp_path):
  files = checkpoints.files
  # Each dict is referenced eight times by the next one: 8^8 entries in all.
  body = b'}' + b'q\x00'
  for level in range(1, 9):
    items = b''.join(files.text(str(i)) + b'h' + bytes([level - 1]) for i in range(8))
    body += b'0' + b'}(' + items + b'u' + b'q' + bytes([level])
  path = files.torch_zip(tmp_path / 'x.pt', files.program(body), [])
  with pytest.raises(WeightsError, match='there twice'):
    import_weights.read_psp(path)


def test_names_that_weights_do_not_need_are_refused(tmp_path):
  files = checkpoints.files
  evil = files.call(files.name('os', 'system'), files.text(f'touch {tmp_path}/ran'))
  pickled = files.program(files.dict_of({'g_ema': evil}))
  inner = b'B' + np.uint32(len(pickled)).tobytes() + pickled
  nested = files.call(files.name('torch.storage', '_load_from_bytes'), inner)
  for content in (pickled, files.program(files.dict_of({'G': nested}))):
    path = tmp_path / 'x.pkl'
    path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
      import_weights.read_stylegan2(path)
    assert '\n' not in str(error.value)
  assert not (tmp_path / 'ran').exists()


def test_files_of_single_networks(tmp_path):
  """A state dict alone, or as an entry next to others."""
  state = checkpoints.small_face_embedding()
  path = tmp_path / 'x.pth'
  for tree in (state, {'epoch': 800, 'state_dict': state, 'optimizer': {'state': {}}}):
    module, variables = published.read_face_embedding(checkpoints.write(path, tree))
    assert module.widths == (16, 32, 48, 64) and module.affine
    expected = state['output_layer.3.weight'].reshape(64, 64, 7, 7).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(variables['params']['fc']['kernel'], expected.reshape(-1, 64))
  with pytest.raises(WeightsError, match='lacks conv1.weight'):
    published.read_resnet50(path)


# Damaged files.


SHAPES = [(), (0,), (1,), (8, 0), (24, 24), (1, 16, 16, 3, 3), (2, 3, 4, 5, 6, 7), (10**5,)]


@pytest.mark.parametrize('network', ['generator', 'discriminator', 'encoder'])
def test_arrays_of_any_shape_are_read_or_refused_in_one_line(network, tiny):
  read, state = {
    'generator': (stylegan2_state.generator_from_torch, tiny[1]),
    'discriminator': (stylegan2_state.discriminator_from_torch, tiny[2]),
    'encoder': (encoder_state.encoder_from_torch, checkpoints.small_encoder()),
  }[network]
  random = np.random.RandomState(0)
  keys, refused = sorted(state), 0
  for _ in range(60):
    key = keys[random.randint(len(keys))]
    shape = SHAPES[random.randint(len(SHAPES))]
    if shape == state[key].shape:
      continue
    try:
      read({**state, key: np.zeros(shape, np.float32)}, 'x.pt')
    except WeightsError as error:
      assert str(error).startswith('x.pt') and '\n' not in str(error), (key, shape)
      refused += 1
  # A single value may be a scalar or a vector.
  assert refused > 40


def test_too_many_levels_are_refused(tiny):
  state = {k: v for k, v in tiny[1].items() if not k.startswith('noises')}
  for i in range(3, 40):
    for key in [k for k in state if k.startswith('to_rgbs.2.')]:
      state[key.replace('.2.', f'.{i}.', 1)] = state[key]
    for j in range(2):
      for key in [k for k in state if k.startswith(f'convs.{4 + j}.')]:
        state[key.replace(f'.{4 + j}.', f'.{2 * i + j}.', 1)] = state[key]
  with pytest.raises(WeightsError, match='does not have a StyleGAN2 generator'):
    stylegan2_state.generator_from_torch(state)


@pytest.fixture(scope='module')
def damaged():
  import sys

  sys.path.append(str(psp_vectors.HERE.parents[1] / 'hostile'))
  import mutations

  return mutations


def small_files(folder):
  arrays = {f'a.{i}': np.arange(4, dtype=np.float32) for i in range(3)}
  tree = {'g_ema': arrays, 'latent_avg': np.zeros(3, np.float32), 'opts': {'a': [1, 2], 'b': None}}
  tree['args'] = checkpoints.Namespace(x=1)
  yield checkpoints.write(folder / 'zip.pt', tree)
  yield checkpoints.write(folder / 'legacy.pt', tree, legacy=True)
  yield checkpoints.write_ada(folder / 'ada.pkl', {'G_ema': arrays})


@pytest.mark.parametrize('index', range(3))
def test_damaged_files_are_read_or_refused_in_one_line(index, damaged, tmp_path):
  path = list(small_files(tmp_path))[index]
  content = path.read_bytes()
  before = sorted(p.name for p in tmp_path.iterdir())
  refused = 0

  @hypothesis.settings(
    max_examples=350,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(damaged.changes)
  def read(changes):
    nonlocal refused
    path.write_bytes(damaged.damaged(content, changes))
    try:
      tree = import_weights.read_tree(path)
      for state in tree.values():
        if isinstance(state, dict):
          import_weights.read_arrays(state, str(path))
    except WeightsError as error:
      assert '\n' not in str(error) and str(path) in str(error)
      refused += 1

  read()
  assert refused > 50
  assert sorted(p.name for p in tmp_path.iterdir()) == before
