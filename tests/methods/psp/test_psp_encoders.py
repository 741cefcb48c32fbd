"""Encoders and feature networks of pSp against PyTorch, with the public converters."""

import functools

import flax.traverse_util
import golden_vectors as golden
import jax
import jax.numpy as jnp
import numpy as np
import psp_vectors
import pytest

from step_jax.errors import WeightsError
from step_jax.methods.psp import (
  encoder_state,
  encoders,
  irse,
  losses,
  resizing,
  resnet,
  torch_state,
)

STYLES_13 = (0.035740, -0.005418, 0.109809)


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def variables(state, entries):
  """Variables of a single block with entries under the path `x`."""
  flat = {entry.path: entry.convert(state[entry.key]) for entry in entries}
  return {k: v['x'] for k, v in flax.traverse_util.unflatten_dict(flat, sep='/').items()}


def statistic(x):
  return [x.mean(), x.std(), np.abs(x).max()]


# 10: blocks.


@pytest.mark.parametrize(
  ('tag', 'module'),
  [
    ('irse_same_s1', irse.Unit(32)),
    ('irse_same_s2', irse.Unit(32, 2)),
    ('irse_proj_s2', irse.Unit(48, 2)),
    ('ir_proj_s2', irse.Unit(48, 2, squeeze=False)),
  ],
)
def test_units_and_their_statistics(tag, module):
  vectors = psp_vectors.load('10_irse_blocks')
  state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, tag).items()}
  own = variables(state, encoder_state.unit('x', 'x', state))
  x = vectors['x_nhwc']
  y = jax.jit(functools.partial(module.apply, train=False))(own, x)
  golden.assert_close(y, vectors[f'{tag}_eval_y_nhwc'])
  train = functools.partial(module.apply, train=True, mutable=['batch_stats'])
  y, moved = jax.jit(train)(own, x)
  golden.assert_close(y, vectors[f'{tag}_train_y_nhwc'])
  after = {
    f'x.{k.removeprefix(f"{tag}::after::")}': v for k, v in vectors.items() if '::after::' in k
  }
  entries = [e for e in encoder_state.unit('x', 'x', state) if e.path.startswith('batch_stats')]
  expected = variables({**state, **after}, entries)
  jax.tree.map(golden.assert_close, moved, expected)


def test_squeeze_excitation():
  vectors = psp_vectors.load('10_irse_blocks')
  state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, 'se').items()}
  own = variables(state, encoder_state.squeeze_excite('x', 'x'))
  golden.assert_close(irse.SqueezeExcite().apply(own, vectors['x_nhwc']), vectors['se_y_nhwc'])


# 12: pieces of the encoders.


@pytest.mark.parametrize('side', [16, 64])
def test_heads(side):
  vectors = psp_vectors.load('12_encoder_pieces')
  state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, f'map2style{side}').items()}
  convs = torch_state.count(state, r'x\.convs\.\d+\.bias')
  assert 2**convs == side
  entries = torch_state.dense('x.linear', 'x/fc')
  for i in range(convs):
    entries += torch_state.dense(f'x.convs.{2 * i}', f'x/conv{i}', torch_state.conv)
  y = encoders.Map2Style(8).apply(variables(state, entries), vectors[f'x{side}_nhwc'])
  golden.assert_close(y, vectors[f'map2style{side}_y'])


def test_resizing():
  vectors = psp_vectors.load('12_encoder_pieces')
  for size in (7, 8):
    y = resizing.bilinear(vectors['up_x_nhwc'], size)
    golden.assert_close(y, vectors[f'bilinear_ac_4to{size}_nhwc'])
  x = vectors['pool_x_nhwc']
  for size in (112, 94):
    golden.assert_close(resizing.adaptive_pool(x, size), vectors[f'adaptive_avg_188to{size}_nhwc'])
  enlarged = resizing.adaptive_pool(x[:, :64, :64], 256)[:, ::3, ::3]
  golden.assert_close(enlarged, vectors['adaptive_avg_188to256_nhwc'])
  index = resizing.nearest(np.arange(256)[None, :, None, None], 224)[0, :, 0, 0]
  np.testing.assert_array_equal(index, vectors['nearest_256to224_index'])


def test_pooling_to_an_integer_fraction_is_a_mean_of_blocks():
  x = np.random.RandomState(0).standard_normal((1, 16, 16, 2)).astype(np.float32)
  golden.assert_close(resizing.adaptive_pool(x, 4), x.reshape(1, 4, 4, 4, 4, 2).mean((2, 4)), 1e-6)
  assert resizing.adaptive_pool(x, 16) is x


# 13: the encoder at a quarter of its widths.


def test_a_narrow_encoder():
  vectors = psp_vectors.load('13_psp_encoder_thin')
  module, own = encoder_state.encoder_from_torch(psp_vectors.draw(vectors))
  assert module == encoders.GradualStyleEncoder(
    num_styles=10, widths=(16, 32, 64, 128), style_dim=128
  )
  assert count(own['params']) == 9_497_232
  run = functools.partial(module.apply, train=False, capture_intermediates=True)
  y, captured = jax.jit(run)(own, vectors['x_nhwc'])
  golden.assert_close(y, vectors['styles'])
  np.testing.assert_allclose(y[0, 0, :3], STYLES_13, atol=1e-6)
  _, c1, c2, c3 = captured['intermediates']['body']['__call__'][0]
  levels = jax.jit(functools.partial(module.apply, train=False, method='pyramid'))
  _, p2, p1 = levels(own, vectors['x_nhwc'])
  for name, tap in (('c1', c1), ('c2', c2), ('c3', c3), ('p2', p2), ('p1', p1)):
    np.testing.assert_array_equal(tap.shape, vectors[f'{name}_shape_nhwc'])
    np.testing.assert_allclose(statistic(tap), vectors[f'{name}_stat'], atol=1e-4)
  train = functools.partial(module.apply, train=True, mutable=['batch_stats'])
  y, moved = jax.jit(train)(own, vectors['x_nhwc'])
  golden.assert_close(y, vectors['styles_trainmode'])
  body = moved['batch_stats']['body']
  golden.assert_close(body['bn']['mean'], vectors['after_train::input_layer.1.running_mean'])
  last = vectors['after_train::body.23.res_layer.4.running_var']
  golden.assert_close(body['unit23']['bn1']['var'], last)


# 15, 16: encoders of full width.


def images(vectors):
  if 'x_nhwc' in vectors:
    return vectors['x_nhwc']
  return jax.nn.one_hot(vectors['labels'], int(vectors['labels'].max()) + 1)[None]


@pytest.mark.parametrize('path', psp_vectors.files('15_psp_encoder_*.npz'))
def test_full_pyramid_encoders(path):
  vectors = psp_vectors.read(path)
  state = psp_vectors.draw(vectors)
  module, own = encoder_state.encoder_from_torch(state)
  del state
  assert isinstance(module, encoders.GradualStyleEncoder)
  run = functools.partial(module.apply, train=False, capture_intermediates=True)
  y, captured = jax.jit(run)(own, images(vectors))
  golden.assert_close(y, vectors['styles'])
  taps = captured['intermediates']['body']['__call__'][0]
  for name, tap in zip(('c1', 'c2', 'c3'), taps[1:], strict=True):
    np.testing.assert_allclose(statistic(tap), vectors[f'{name}_stat'], atol=1e-4)


@pytest.mark.parametrize('path', psp_vectors.files('16_backbone_*.npz'))
def test_full_backbone_encoders(path):
  vectors = psp_vectors.read(path)
  module, own = encoder_state.encoder_from_torch(psp_vectors.draw(vectors))
  run = jax.jit(functools.partial(module.apply, train=False))
  golden.assert_close(run(own, images(vectors)), vectors['styles'])


# 11: identities.


def test_arcface_and_the_identity_loss():
  vectors = psp_vectors.load('11_irse50_arcface')
  module, own = encoder_state.face_embedding_from_torch(psp_vectors.draw(vectors))
  assert module == irse.FaceEmbedding() and count(own['params']) == 43_797_696
  embed = functools.partial(module.apply, own)
  names = ('y_hat', 'y', 'x')
  pooled = resizing.adaptive_pool(losses.face_crop(vectors['y_hat_nhwc'][:1]), 112)
  golden.assert_close(pooled[:, ::4, ::4], vectors['pool112_y_hat'])
  run = jax.jit(lambda own, faces: module.apply(own, faces))
  golden.assert_close(run(own, vectors['x112_nhwc']), vectors['emb'])
  crop = lambda x: resizing.adaptive_pool(losses.face_crop(x), 112)
  embeddings = [run(own, crop(vectors[f'{name}_nhwc'])) for name in names]
  for name, embedding in zip(names, embeddings, strict=True):
    golden.assert_close(embedding, vectors[f'emb_{name}'])
  output, target, source = embeddings
  golden.assert_close(losses.cosine(output, target), vectors['diff_target'])
  golden.assert_close(losses.cosine(output, source), vectors['diff_input'])
  golden.assert_close(losses.cosine(target, source), vectors['diff_views'])

  def objective(image):
    return losses.similarity_loss(losses.identity_features(embed, image), target)

  loss, gradient = jax.jit(jax.value_and_grad(objective))(vectors['y_hat_nhwc'])
  golden.assert_close(loss, vectors['loss_id'], 1e-3)
  golden.assert_close(gradient[:, 3::8, 3::8], vectors['dloss_dyhat_sub8'], 5e-3)
  np.testing.assert_allclose(golden.norm(gradient), vectors['dloss_dyhat_l2'], rtol=5e-3)


def test_metric_network():
  vectors = psp_vectors.load('11b_ir101_metric')
  faces = psp_vectors.load('11_irse50_arcface')['x112_nhwc']
  module, own = encoder_state.face_embedding_from_torch(psp_vectors.draw(vectors))
  expected = irse.FaceEmbedding(depths=irse.DEPTHS_101, squeeze=False, affine=False)
  assert module == expected and count(own['params']) == 65_128_768
  golden.assert_close(jax.jit(module.apply)(own, faces), vectors['emb'])


# 19: MoCo.


def test_moco():
  vectors = psp_vectors.load('19_moco_resnet50')
  module, own = encoder_state.resnet50_from_torch(psp_vectors.draw(vectors))
  embed = functools.partial(module.apply, train=False)
  run = jax.jit(lambda own, x: losses.moco_features(functools.partial(embed, own), x))
  output, target, source = (run(own, vectors[f'{name}_nhwc']) for name in 'abc')
  for name, features in zip('abc', (output, target, source), strict=True):
    golden.assert_close(features, vectors[f'feat_{name}'])
  golden.assert_close(losses.cosine(output, target), vectors['diff_target'])
  golden.assert_close(losses.cosine(output, source), vectors['diff_input'])
  golden.assert_close(losses.cosine(target, source), vectors['diff_views'])
  golden.assert_close(losses.similarity_loss(output, target), vectors['loss'], 5e-3)
  # A single image keeps its batch axis.
  assert run(own, vectors['a_nhwc'][:1]).shape == (1, resnet.FEATURES)


def test_moco_checkpoints_hold_the_network_under_a_prefix():
  vectors = psp_vectors.load('19_moco_resnet50')
  shapes = {
    str(key): np.zeros(shape, np.float32)
    for key, shape in zip(
      vectors['param_keys'],
      ([int(n) for n in str(s).strip('[]').split(',')] for s in vectors['param_shapes']),
      strict=True,
    )
  }
  shapes |= {'fc.0.weight': np.zeros((4, 4))}
  moco = {f'module.encoder_q.{k}': v for k, v in shapes.items()}
  moco |= {'module.encoder_k.conv1.weight': np.zeros(3), 'module.queue': np.zeros(3)}
  _, own = encoder_state.resnet50_from_torch(moco)
  assert own['params']['conv']['kernel'].shape == (7, 7, 3, 64)


# Sizes, parameters, errors.


@pytest.mark.parametrize(
  ('styles', 'parameters'),
  [(18, 267_136_704), (10, 151_773_888), (8, 122_921_664)],
)
def test_parameters_of_the_pyramid_encoder(styles, parameters):
  module = encoders.GradualStyleEncoder(num_styles=styles)
  init = functools.partial(module.init, train=False)
  own = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 256, 256, 3 if styles != 10 else 19)))
  assert count(own['params']) == parameters


SMALL = {'depths': (1, 1, 1, 1), 'widths': (16, 16, 32, 32), 'style_dim': 8}


@pytest.mark.parametrize(
  ('module', 'shape'),
  [
    (encoders.GradualStyleEncoder(num_styles=8, size=64, **SMALL), (2, 8, 8)),
    (encoders.GradualStyleEncoder(num_styles=10, size=128, **SMALL), (2, 10, 8)),
    (encoders.IntoWEncoder(size=64, **SMALL), (2, 8)),
    (encoders.IntoWPlusEncoder(num_styles=6, size=64, **SMALL), (2, 6, 8)),
    (encoders.ResNetLinearEncoder(num_styles=6, size=64, style_dim=8), (2, 6, 8)),
    (encoders.ResNetLinearEncoder(num_styles=1, size=64, style_dim=8), (2, 8)),
  ],
)
def test_encoders_of_any_size(module, shape):
  x = jax.ShapeDtypeStruct((2, module.size, module.size, 3), jnp.float32)
  init = functools.partial(module.init, train=True)
  own = jax.eval_shape(init, jax.random.key(0), x)
  run = functools.partial(module.apply, train=True, mutable=['batch_stats'])
  styles, moved = jax.eval_shape(run, own, x)
  assert styles.shape == shape
  same = jax.tree.map(lambda a, b: a.shape == b.shape, own['batch_stats'], moved['batch_stats'])
  assert all(jax.tree.leaves(same))


def test_heads_are_initialised_independently():
  module = encoders.GradualStyleEncoder(num_styles=8, size=64, **SMALL)
  init = functools.partial(module.init, train=False)
  own = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))['params']
  depth = lambda name: sum(layer.startswith('conv') for layer in own[name]['heads'])
  # Maps of 4, 8 and 16 px.
  assert [depth(name) for name in ('coarse', 'middle', 'fine')] == [2, 3, 4]
  heads = encoders.Heads(3, 8)
  own = jax.jit(heads.init)(jax.random.key(0), jnp.zeros((1, 2, 2, 32)))
  kernel = own['params']['heads']['conv0']['kernel']
  assert kernel.shape == (3, 3, 3, 32, 8) and not np.array_equal(kernel[0], kernel[1])
  bound = 1 / np.sqrt(9 * 32)
  assert 0.9 * bound < np.abs(kernel).max() <= bound


def test_other_sizes_are_one_clear_error():
  def init(module):
    own = isinstance(module, irse.FaceEmbedding)
    return module.init if own else functools.partial(module.init, train=False)

  def refused(module, shape, message):
    with pytest.raises(ValueError, match=message) as error:
      jax.eval_shape(init(module), jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert '\n' not in str(error.value)

  pyramid = functools.partial(encoders.GradualStyleEncoder, **SMALL)
  refused(pyramid(8), (1, 512, 512, 3), r'256 x 256 px, not \[1, 512, 512, 3\]; resize')
  refused(pyramid(8, size=96), (1, 96, 96, 3), 'power of two from 64 px, not 96')
  refused(pyramid(8, size=32), (1, 32, 32, 3), 'power of two from 64 px, not 32')
  refused(pyramid(7, size=64), (1, 64, 64, 3), 'at least 8 styles, not 7')
  refused(irse.FaceEmbedding(), (1, 256, 256, 3), r'take \[B, 112, 112, 3\]')


def test_state_dicts_that_do_not_fit_are_one_clear_error():
  for read in (
    encoder_state.encoder_from_torch,
    encoder_state.face_embedding_from_torch,
    encoder_state.resnet50_from_torch,
  ):
    with pytest.raises(WeightsError, match='^x.pt'):
      read({'a': np.zeros(3)}, 'x.pt')


def test_encoders_start_from_trained_networks():
  fields = {'depths': (1, 1, 1, 1), 'widths': (16,) * 4}
  trained = jax.eval_shape(
    irse.FaceEmbedding(**fields).init, jax.random.key(0), jnp.zeros((1, 112, 112, 3))
  )
  ones = jax.tree.map(lambda x: jnp.ones(x.shape), trained)
  body = {name: tree['body'] for name, tree in ones.items()}
  for channels in (3, 19):
    module = encoders.IntoWEncoder(64, **fields, style_dim=8)
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    started = encoders.start_from(zeros, body)
    found = flax.traverse_util.flatten_dict(started, sep='/')
    loaded = {path.split('/')[2] for path, x in found.items() if np.all(x)}
    units = {f'unit{i}' for i in range(4)}
    assert loaded == units | ({'conv', 'bn', 'prelu'} if channels == 3 else set())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.shape, b.shape), started, zeros)
  other = encoders.ResNetLinearEncoder(4, 64, style_dim=8)
  shapes = jax.eval_shape(
    functools.partial(other.init, train=False), jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )
  with pytest.raises(ValueError, match='other layers'):
    encoders.start_from(shapes, body)
