"""Layers and networks of StyleGAN2 against PyTorch, with the public converters."""

import functools

import flax.traverse_util
import golden_vectors as golden
import jax
import jax.numpy as jnp
import numpy as np
import psp_vectors
import pytest

from step_jax.errors import WeightsError
from step_jax.methods.psp import fir, generator, layers, stylegan2_state, torch_state
from step_jax.methods.psp.discriminator import Discriminator, ResBlock
from step_jax.methods.psp.generator import Generator


def params(state, entries):
  """Parameters of a single layer with entries under the path `x`."""
  flat = {entry.path: entry.convert(state[entry.key]) for entry in entries}
  return {'params': flax.traverse_util.unflatten_dict(flat, sep='/')['params']['x']}


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


# 01: filters.


@pytest.mark.parametrize(
  ('name', 'kernel', 'up', 'down', 'pad'),
  [
    ('asym_up2_down1_pad2_1', 'k_asym', 2, 1, (2, 1)),
    ('asym_up1_down2_pad1_2', 'k_asym', 1, 2, (1, 2)),
    ('asym_up2_down3_pad3_0', 'k_asym', 2, 3, (3, 0)),
    ('asym_up1_down1_padneg1_2', 'k_asym', 1, 1, (-1, 2)),
    ('Downsample2', 'k_1331', 1, 2, (1, 1)),
  ],
)
def test_general_filters(name, kernel, up, down, pad):
  vectors = psp_vectors.load('01_upfirdn2d')
  y = fir.upfirdn2d(vectors['x_nhwc'], vectors[kernel], up, down, pad)
  golden.assert_close(y, vectors[f'y_nhwc::{name}'])


@pytest.mark.parametrize(
  ('name', 'filtered'),
  [
    ('blur_conv_up_gain4_pad1_1', functools.partial(fir.blur, pad=1, gain=4.0)),
    ('blur_down3_pad2_2', functools.partial(fir.blur, pad=2)),
    ('blur_down1_pad1_1', functools.partial(fir.blur, pad=1)),
    ('Downsample2', functools.partial(fir.blur, pad=1, down=2)),
    ('Upsample2', fir.upsample),
  ],
)
def test_filters_of_stylegan2(name, filtered):
  vectors = psp_vectors.load('01_upfirdn2d')
  golden.assert_close(filtered(vectors['x_nhwc']), vectors[f'y_nhwc::{name}'])


def test_activation():
  vectors = psp_vectors.load('01_upfirdn2d')
  activate = lambda x, bias: layers.fused_leaky_relu(x + bias)
  y, pull = jax.vjp(activate, vectors['flr_x_nhwc'], vectors['flr_bias'])
  dx, dbias = pull(jnp.asarray(vectors['flr_cotangent_nhwc']))
  golden.assert_close(y, vectors['flr_y_nhwc'])
  golden.assert_close(dx, vectors['flr_dx_nhwc'])
  golden.assert_close(dbias, vectors['flr_dbias'])


# 02: layers.


def test_linear_layers_and_mapping():
  vectors = psp_vectors.load('02_basic_layers')
  for tag, module in (
    ('equal_linear', layers.EqualLinear(7)),
    ('equal_linear_lr001_act', layers.EqualLinear(7, lr_multiplier=0.01, activate=True)),
  ):
    state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, tag).items()}
    y = module.apply(params(state, torch_state.dense('x', 'x')), vectors['v'])
    golden.assert_close(y, vectors[f'{tag}_y'])
  state = psp_vectors.stored(vectors, 'mapping')
  entries = [e for i in range(8) for e in torch_state.dense(f'style.{i + 1}', f'x/fc{i}')]
  mapping = generator.MappingNetwork(8, 10, 0.01)
  golden.assert_close(mapping.apply(params(state, entries), vectors['v']), vectors['mapping_y'])
  normal = generator.MappingNetwork(0, 10, 0.01).apply({}, vectors['v'])
  golden.assert_close(normal, vectors['pixelnorm'])


@pytest.mark.parametrize(
  ('tag', 'module', 'entries'),
  [
    ('equal_conv_k3p1', layers.EqualConv(6, 3, activate=False), ('x', 'x', torch_state.conv)),
    ('convlayer_k3', layers.EqualConv(6, 3), 0),
    ('convlayer_k3_down', layers.EqualConv(6, 3, layers.downsampling), 1),
    (
      'convlayer_k1_down_noact',
      layers.EqualConv(6, 1, layers.downsampling, bias=False, activate=False),
      None,
    ),
    ('resblock', ResBlock(6), 'block'),
  ],
)
def test_convolutions(tag, module, entries):
  vectors = psp_vectors.load('02_basic_layers')
  state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, tag).items()}
  if entries is None:
    entries = [torch_state.Entry('x.1.weight', 'params/x/kernel', torch_state.conv)]
  elif entries == 'block':
    entries = stylegan2_state.res_block('x', 'x')
  elif isinstance(entries, int):
    entries = stylegan2_state.equal_conv('x', 'x', entries)
  else:
    entries = torch_state.dense(*entries)
  y = module.apply(params(state, entries), vectors['x_nhwc'])
  golden.assert_close(y, vectors[f'{tag}_y_nhwc'])


# 03: modulated convolutions.


@pytest.mark.parametrize(
  ('tag', 'module'),
  [
    ('k3', layers.ModulatedConv(4, 3)),
    ('k3_nodemod', layers.ModulatedConv(4, 3, demodulate=False)),
    ('k1_nodemod', layers.ModulatedConv(4, 1, demodulate=False)),
    ('k3_up', layers.ModulatedConv(4, 3, layers.upsampling)),
    ('k3_down', layers.ModulatedConv(4, 3, layers.downsampling)),
  ],
)
def test_modulated_convolutions_and_their_gradients(tag, module):
  vectors, tag = psp_vectors.load('03_modulated_conv'), f'modconv_{tag}'
  state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, tag).items()}
  variables = params(state, stylegan2_state.modulated_conv('x', 'x'))
  y, pull = jax.vjp(module.apply, variables, vectors['x_nhwc'], vectors['style'])
  golden.assert_close(y, vectors[f'{tag}_y_nhwc'])
  dvariables, dx, dstyle = pull(jnp.asarray(vectors[f'{tag}_cotangent_nhwc']))
  golden.assert_close(dx, vectors[f'{tag}_dx_nhwc'])
  golden.assert_close(dstyle, vectors[f'{tag}_dstyle'])
  expected = torch_state.modulated(vectors[f'{tag}_dweight_1OIhw'])
  golden.assert_close(dvariables['params']['kernel'], expected)


def plain(convolution):
  """A convolution of stride 2 without its own rules for gradients."""

  def convolve(x, kernel):
    if convolution is layers.downsampling:
      return layers._convolve(fir.blur(x, pad=2), kernel, stride=2)
    y = layers._convolve(x, kernel[::-1, ::-1], pad=2, lhs_dilation=(2, 2))
    return fir.blur(y, pad=1, gain=4.0)

  return convolve


@pytest.mark.parametrize('platform', ['cpu', 'default'])
@pytest.mark.parametrize('convolution', [layers.upsampling, layers.downsampling])
def test_first_and_second_derivatives_of_convolutions_of_stride_2(
  convolution, platform, monkeypatch
):
  monkeypatch.setattr(jax.lax, 'platform_dependent', lambda *args, **by: by[platform](*args))
  rng = np.random.default_rng(0)
  x, kernel, target = (rng.normal(size=s) for s in ((2, 6, 4, 3), (3, 3, 3, 5), (2, 12, 12, 5)))

  def derivatives(convolution):
    def value(x, kernel):
      y = convolution(x, kernel)
      return jnp.sum(jnp.sin(y) * target[:, : y.shape[1], : y.shape[2]])

    def penalty(x, kernel):
      return jnp.sum(jnp.square(jax.grad(value)(x, kernel)))

    with jax.enable_x64(True):
      return [jax.grad(f, (0, 1))(jnp.asarray(x), jnp.asarray(kernel)) for f in (value, penalty)]

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
    derivatives(convolution),
    derivatives(plain(convolution)),
  )


@pytest.mark.parametrize(
  ('tag', 'convolution'),
  [('styledconv', layers.same), ('styledconv_up', layers.upsampling)],
)
def test_styled_convolutions(tag, convolution):
  vectors = psp_vectors.load('03_modulated_conv')
  state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, tag).items()}
  module = generator.StyledConv(4, convolution)
  variables = params(state, stylegan2_state.styled_conv('x', 'x'))
  noise = vectors[f'{tag}_noise_nhwc']
  y = module.apply(variables, vectors['x_nhwc'], vectors['style'], noise)
  golden.assert_close(y, vectors[f'{tag}_y_nhwc'])


def test_to_rgb():
  vectors = psp_vectors.load('03_modulated_conv')
  state = {f'x.{k}': v for k, v in psp_vectors.stored(vectors, 'torgb').items()}
  run = functools.partial(generator.ToRGB().apply, params(state, stylegan2_state.to_rgb('x', 'x')))
  x, w = vectors['x_nhwc'], vectors['style']
  golden.assert_close(run(x, w, vectors['torgb_skip_nhwc']), vectors['torgb_y_nhwc'])
  golden.assert_close(run(x, w), vectors['torgb_noskip_y_nhwc'])


# 04: the narrow generator.


@pytest.fixture(scope='module')
def tiny():
  vectors = psp_vectors.load('04_generator_tiny')
  state = psp_vectors.stored(vectors)
  drawn = psp_vectors.draw(vectors)
  assert drawn.keys() == state.keys()
  for key, array in drawn.items():
    np.testing.assert_array_equal(array, state[key])
  module, variables = stylegan2_state.generator_from_torch(state)
  assert module == Generator((16, 16, 12, 8), style_dim=24, mapping_depth=3)
  return vectors, module, variables


def synthesize(module, variables, w_plus, noise=None):
  run = jax.jit(functools.partial(module.apply, method='synthesize'))
  return run(variables, w_plus, noise)


def test_generator_draws_from_z_w_and_w_plus(tiny):
  vectors, module, variables = tiny
  w = module.apply(variables, vectors['z1'], method='map')
  golden.assert_close(w, vectors['w_of_z1'])
  golden.assert_close(generator.broadcast(w, module.num_styles), vectors['lat_z1'])
  golden.assert_close(module.apply(variables, vectors['z1']), vectors['y_z1_nhwc'])
  golden.assert_close(synthesize(module, variables, vectors['lat_z1']), vectors['y_z1_nhwc'])
  run = functools.partial(module.apply, method='synthesize', capture_intermediates=True)
  y, captured = jax.jit(run)(variables, vectors['w_plus'])
  golden.assert_close(y, vectors['y_wplus_nhwc'])
  (features,) = captured['intermediates']['synthesis']['b32']['conv']['__call__']
  golden.assert_close(features, vectors['feat_wplus_nhwc'])


def test_truncation_and_style_mixing(tiny):
  vectors, module, variables = tiny
  map_ = functools.partial(module.apply, variables, method='map')
  first, second = (generator.broadcast(map_(vectors[z]), 8) for z in ('z1', 'z2'))
  truncated = generator.truncate(first, vectors['trunc_latent'][0], 0.7)
  golden.assert_close(truncated, vectors['lat_z1_trunc07'])
  y = synthesize(module, variables, truncated)
  golden.assert_close(y, vectors['y_z1_trunc07_nhwc'])
  mixed = generator.mix(first, second, 3)
  golden.assert_close(mixed, vectors['lat_mix_inject3'])
  golden.assert_close(synthesize(module, variables, mixed), vectors['y_mix_inject3_nhwc'])


def test_explicit_and_random_noise(tiny):
  vectors, module, variables = tiny
  explicit = functools.partial(synthesize, module, {'params': variables['params']})
  zeros = [jnp.zeros((1, side, side, 1)) for side in generator.noise_sides(32)]
  golden.assert_close(explicit(vectors['w_plus'], zeros), vectors['y_wplus_zeronoise_nhwc'])
  const = variables['noise']['synthesis']
  blocks = [const['b4']['conv']]
  blocks += [const[f'b{r}'][name] for r in (8, 16, 32) for name in ('conv_up', 'conv')]
  noise = [block['const'] for block in blocks]
  golden.assert_close(explicit(vectors['w_plus'], noise), vectors['y_wplus_nhwc'])
  drawn = [generator.random_noise(jax.random.key(seed), 2, 32) for seed in (0, 0, 1)]
  a, b, c = (explicit(vectors['w_plus'], noise) for noise in drawn)
  np.testing.assert_array_equal(a, b)
  assert float(jnp.abs(a - c).max()) > 1e-3
  # Noise differs between the images of a batch and between layers of the same size.
  assert not np.array_equal(drawn[0][1][0], drawn[0][1][1])
  assert not np.array_equal(drawn[0][1], drawn[0][2])


def test_mean_style(tiny):
  _, module, variables = tiny
  mean = generator.mean_style(module, variables, jax.random.key(0), samples=20_001)
  z = jax.random.normal(jax.random.key(1), (20_000, 24))
  other = module.apply(variables, z, method='map')
  error = jnp.std(other, axis=0) / 20_000**0.5
  assert mean.shape == (24,)
  assert float(jnp.max(jnp.abs(mean - other.mean(axis=0)) / error)) < 6


def test_other_numbers_of_styles_are_one_clear_error(tiny):
  _, module, variables = tiny
  with pytest.raises(ValueError, match=r'32 px takes styles \[B, 8, 24\], not \[2, 18, 24\]'):
    module.apply(variables, jnp.zeros((2, 18, 24)), method='synthesize')


# 05: generators of full width.


@pytest.mark.parametrize('path', psp_vectors.files('05_generator_*.npz'))
def test_full_generators(path):
  vectors = psp_vectors.read(path)
  module, variables = stylegan2_state.generator_from_torch(psp_vectors.draw(vectors))
  map_ = functools.partial(module.apply, variables, method='map')
  run = functools.partial(module.apply, method='synthesize', capture_intermediates=True)
  run = jax.jit(run)
  w = map_(vectors['z1'])
  golden.assert_close(w, vectors['w_z1'])
  n = module.num_styles
  golden.assert_close(run(variables, generator.broadcast(w, n))[0], vectors['y_z1_nhwc'])
  y, captured = run(variables, vectors['w_plus'])
  golden.assert_close(y, vectors['y_wplus_nhwc'])
  (feature,) = captured['intermediates']['synthesis'][f'b{module.size}']['conv']['__call__']
  golden.assert_close(feature[:, ::4, ::4], vectors['feat_wplus_nhwc_sub4'])
  both = (generator.truncate(map_(vectors[z]), w[0], 0.5) for z in ('z1', 'z2'))
  mixed = generator.mix(*(generator.broadcast(x, n) for x in both), 4)
  golden.assert_close(run(variables, mixed)[0], vectors['y_mix4_trunc05_nhwc'])


# 07: the discriminator.


def test_discriminator():
  vectors = psp_vectors.load('07_discriminator_tiny')
  module, variables = stylegan2_state.discriminator_from_torch(psp_vectors.stored(vectors))
  assert module == Discriminator((16, 16, 12, 8))
  run = jax.jit(module.apply)
  for batch in (1, 2, 3, 4, 8):
    logits = run(variables, vectors['x_nhwc'][:batch])
    golden.assert_close(logits, vectors[f'logits_first{batch}'])
  _, captured = jax.jit(functools.partial(module.apply, capture_intermediates=True))(
    variables, vectors['x_nhwc']
  )
  (feature,) = captured['intermediates']['b8']['__call__']
  golden.assert_close(feature, vectors['feat_before_mbstd_nhwc'])


def test_sizes_that_do_not_fit_a_discriminator_are_one_clear_error():
  init = functools.partial(jax.eval_shape, Discriminator((8, 8)).init, jax.random.key(0))
  with pytest.raises(ValueError, match='batch of 6.*groups of 4'):
    init(jnp.zeros((6, 8, 8, 3)))
  with pytest.raises(ValueError, match='images of 8 x 8 px.*resize'):
    init(jnp.zeros((1, 16, 16, 3)))


# Sizes, and state dicts of the wrong structure.


@pytest.mark.parametrize(
  ('size', 'multiplier', 'parameters'),
  [(1024, 2, 30_370_060), (256, 2, 30_034_338), (256, 1, 24_767_458)],
)
def test_parameters_of_generators(size, multiplier, parameters):
  module = Generator(generator.channel_table(size, multiplier))
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 512)))
  assert count(variables['params']) == parameters
  assert module.size == size and module.num_styles == 2 * size.bit_length() - 4
  assert [x.shape[1] for x in jax.tree.leaves(variables['noise'])].count(size) == 2


def test_parameters_of_the_discriminator():
  module = Discriminator(generator.channel_table(1024))
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1024, 1024, 3)))
  assert count(variables) == 29_012_513


def test_channel_tables():
  assert generator.channel_table(1024) == (512,) * 5 + (256, 128, 64, 32)
  assert generator.channel_table(64, 1, most=64) == (64,) * 5
  with pytest.raises(ValueError, match='power of two from 8 px, not 96 px'):
    generator.channel_table(96)


def test_initial_images_have_the_variance_of_their_layers():
  module = Generator((16, 16), style_dim=8, mapping_depth=2)
  variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8)))
  strengths = [
    x
    for path, x in flax.traverse_util.flatten_dict(variables['params']).items()
    if path[-1] == 'noise_strength'
  ]
  assert len(strengths) == 3 and not np.any(strengths)
  z = jax.random.normal(jax.random.key(1), (4, 8))
  assert 0.1 < float(jnp.std(jax.jit(module.apply)(variables, z))) < 10


def test_state_dicts_that_do_not_fit_are_one_clear_error(caplog):
  vectors = psp_vectors.load('04_generator_tiny')
  state = psp_vectors.stored(vectors)
  read = stylegan2_state.generator_from_torch

  def refused(change, message):
    with pytest.raises(WeightsError, match=message) as error:
      read(change, 'x.pt')
    assert str(error.value).startswith('x.pt') and '\n' not in str(error.value)

  without = lambda name: {k: v for k, v in state.items() if k != name}
  refused(without('style.2.bias'), 'lacks style.2.bias')
  refused(without('conv1.conv.weight'), 'lacks conv1.conv.weight')
  refused({**state, 'more\n': state['style.1.bias']}, r'has more\\n, which')
  refused({**state, 'style.3.weight': state['style.3.bias']}, r'shape \[24\] at style.3.weight')
  refused({**state, 'convs.0.conv.weight': state['style.3.bias']}, 'not have a StyleGAN2 gen')
  refused({**state, 'style.3.bias': np.full(24, np.nan, np.float32)}, 'not finite')
  refused({**state, 'to_rgbs.0.upsample.kernel': np.ones((4, 4))}, 'another filter')
  kernels = {'to_rgbs.0.upsample.kernel': 4 * np.outer(fir.TAPS, fir.TAPS)}
  whole = read({**state, **kernels})[1]
  assert not caplog.records
  old = {k: v for k, v in state.items() if not k.startswith('noises.')}
  _, variables = read(old, 'x.pt')
  assert 'x.pt has no constant noise' in caplog.text
  jax.tree.map(np.testing.assert_array_equal, variables['params'], whole['params'])
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  assert shapes(variables['noise']) == shapes(whole['noise'])
