"""SuperStyleNet's networks against results of the original, and their invariants."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ssn_vectors

from step_jax.errors import WeightsError
from step_jax.methods.superstylenet import ace, layers, torch_state
from step_jax.methods.superstylenet.discriminator import Discriminator, half_size
from step_jax.methods.superstylenet.generator import (
  Generator,
  ResBlock,
  draw_noise,
  num_upsamplings,
)
from step_jax.models import convolutions

L, C = 5, 16
ACE = functools.partial(ace.ACE, num_labels=L, style_size=C, label_width=C)
GENERATOR = Generator(L, style_size=C, width=2)
STATS = ['batch_stats', 'spectral']


def close(actual, expected, tolerance=3e-6):
  """Checks that differences are at most `tolerance` times the largest value, or times 1."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, (actual.shape, expected.shape)
  worst = np.abs(actual - expected).max() / max(1.0, np.abs(expected).max())
  assert worst <= tolerance, worst


def trees_close(actual, expected, tolerance=3e-6):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: close(a, b, tolerance), actual, expected)


def gradients_close(actual, expected):
  """Compares relative to the maximum of each array; true zeros may have rounding errors.

  These are biases before a batch norm, and shifts that the next norm cancels. Arrays that are
  expected to be NaN are skipped.
  """
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for path, a in jax.tree.leaves_with_path(actual):
    b = functools.reduce(lambda tree, key: tree[key.key], path, expected)
    if np.isnan(b).all():
      continue
    scale = np.abs(b).max()
    worst = np.abs(a).max() if scale < 3e-6 else np.abs(a - b).max()
    assert worst <= max(5e-5 * scale, 3e-6), (path, worst, scale)


def noise_of(vectors, prefix):
  """`noise:<prefix>_ACE_<name>` -> our names."""
  found = {}
  for name, value in ssn_vectors.part(vectors, f'noise:{prefix}').items():
    found[f'ace_{name[-1]}'] = jnp.asarray(value)
  return found


@pytest.mark.parametrize('case', ['small', 'full'])
def test_gsas(case):
  vectors = ssn_vectors.part(ssn_vectors.load('torch_gsas'), f'{case}_')
  weight = vectors['w'][1]
  out, pull = jax.vjp(ace.gsas, vectors['in'], weight)
  close(out, vectors['out'], 1e-7)
  to_codes, to_weight = pull(vectors['R'])
  close(to_codes, vectors['grad_in'], 1e-6)
  np.testing.assert_allclose(to_weight, vectors['grad_w'][1], rtol=5e-5)


@pytest.mark.parametrize('name', ssn_vectors.names('torch_ace*'))
def test_ace(name):
  vectors = ssn_vectors.load(name)
  params, stats = torch_state.ace(ssn_vectors.part(vectors, 'p:'))
  style = 'label_kernel' in params
  module = ACE(8, style=style)
  labels = layers.nearest_labels(vectors['label'], 8, 8)
  codes, noise = vectors['codes'], vectors['noise']
  variables = {'params': params, **stats}
  close(module.apply(variables, vectors['x'], labels, codes, noise), vectors['out_eval'])
  layout = module.apply(variables, labels, method='layout')
  if style:
    np.testing.assert_array_equal(labels, vectors['label_small'])
    spade = np.concatenate([vectors['gamma_spade'], vectors['beta_spade']], axis=-1)
    close(layout, spade)
    styles = module.apply(variables, codes, method='styles')
    close(styles, vectors['M'])
    of_style = ace.style_maps(labels, styles, params['style_kernel']) + params['style_bias']
    close(of_style, np.concatenate([vectors['gamma_avg'], vectors['beta_avg']], axis=-1))
  cached = module.apply(variables, vectors['x'], labels, codes, noise, layout=layout)
  close(cached, vectors['out_eval'])

  def loss(params, x, codes):
    out, moved = module.apply(
      {'params': params, **stats}, x, labels, codes, noise, True, mutable=STATS
    )
    return jnp.sum(out * vectors['R']), (out, moved)

  grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
  grads, (out, moved) = grad(params, vectors['x'], codes)
  close(out, vectors['out_train'])
  new = {f'param_free_norm.{k[4:]}': v for k, v in vectors.items() if k.startswith('new_')}
  trees_close(moved['batch_stats'], torch_state.ace_stats(new))
  gradients_close(grads[0], torch_state.ace_params(ssn_vectors.part(vectors, 'g:')))
  gradients_close(grads[1], vectors['grad_x'])
  gradients_close(grads[2], np.broadcast_to(vectors['grad_codes'], codes.shape))


@pytest.mark.parametrize('name', ssn_vectors.names('torch_block_*'))
def test_block(name):
  """With and without a learned shortcut; names end with the numbers of channels."""
  vectors = ssn_vectors.load(name)
  inputs, features = map(int, name.split('_')[2:4])
  state = ssn_vectors.part(vectors, 'p:')
  params, stats = torch_state.block(state)
  module = ResBlock(inputs, features, L, C, C, 128, style='label_kernel' in params['ace_0'])
  labels = layers.nearest_labels(vectors['label'], *vectors['x'].shape[1:3])
  args = vectors['x'], labels, vectors['codes'], noise_of(vectors, 'B_')
  out = module.apply({'params': params, **stats}, *args)
  close(out, vectors['out_eval'])
  out, moved = module.apply({'params': params, **stats}, *args, True, mutable=STATS)
  close(out, vectors['out_train'])
  trees_close(moved, torch_state.block(state | ssn_vectors.part(vectors, 'new:'))[1])


def test_generator():
  vectors = ssn_vectors.load('torch_generator')
  params, stats = torch_state.generator(ssn_vectors.part(vectors, 'p:'))
  noise = {
    name: noise_of(vectors, name.replace('middle', 'G_middle') + '_')
    for name in GENERATOR.sizes(64, 64)
  }
  args = vectors['label'], vectors['codes'], noise
  out, found = GENERATOR.apply(
    {'params': params, **stats}, *args, capture_intermediates=True, mutable=['intermediates']
  )
  for name, expected in ssn_vectors.part(vectors, 'act:').items():
    close(found['intermediates'][name.replace('G_', '')]['__call__'][0], expected, 5e-6)
  close(out, vectors['out_eval'])
  out, moved = GENERATOR.apply({'params': params, **stats}, *args, True, mutable=STATS)
  close(out, vectors['out_train'])
  new = ssn_vectors.part(vectors, 'new:')
  if new:
    state = ssn_vectors.part(vectors, 'p:') | new
    trees_close(moved, torch_state.generator(state)[1])


def test_discriminator():
  vectors = ssn_vectors.load('torch_disc')
  params, stats = torch_state.discriminator(ssn_vectors.part(vectors, 'p:'))
  module = Discriminator(L, width=4)
  labels, image = jnp.tile(vectors['label'], (2, 1, 1)), vectors['x'][..., L:]
  np.testing.assert_array_equal(layers.one_hot(labels, L), vectors['x'][..., :L])
  close(half_size(vectors['x']), vectors['down'])
  for mode in ('eval', 'train'):
    scales, _ = module.apply(
      {'params': params, **stats}, labels, image, mode == 'train', mutable=STATS
    )
    for i, maps in enumerate(scales):
      for j, found in enumerate(maps):
        close(found, vectors[f'{mode}:{i}_{j}'])


def test_missing_arrays_are_named():
  state = ssn_vectors.part(ssn_vectors.load('torch_disc'), 'p:')
  del state['discriminator_1.model2.0.0.weight_u']
  with pytest.raises(WeightsError, match='lacks discriminator_1.model2.0.0.weight_u'):
    torch_state.discriminator(state)


@functools.cache
def small():
  """A small generator whose values make all parameters affect the output."""
  module = Generator(4, style_size=8, width=2, num_upsamplings=2, label_width=6, spade_width=5)
  labels = jnp.asarray(np.random.default_rng(0).integers(0, 4, (2, 22, 17)))
  codes = jax.random.normal(jax.random.key(1), (2, 4, 8))
  random = np.random.default_rng(2)
  shapes = jax.eval_shape(module.init, jax.random.key(0), labels, codes)
  draw = lambda x: jnp.asarray(random.normal(0, 0.2, x.shape).astype(np.float32))
  variables = jax.tree.map(draw, shapes)
  variables['batch_stats'] = jax.tree.map(jnp.ones_like, variables['batch_stats'])
  return module, variables, labels, codes


def test_any_size_and_one_layout_for_many_styles():
  module, variables, labels, codes = small()
  noise = draw_noise(jax.random.key(5), module, 2, 22, 17)
  apply = jax.jit(module.apply)
  one = labels[:1]
  out = apply(variables, jnp.tile(one, (2, 1, 1)), codes, noise)
  assert out.shape == (2, 22, 17, 3) and np.abs(out[0] - out[1]).max() > 1e-3
  layout = jax.jit(functools.partial(module.apply, method='layout'))(variables, one)
  close(apply(variables, one, codes, noise, layout=layout), out, 1e-6)


def test_noise_counts_and_is_drawn_from_a_key():
  module, variables, labels, codes = small()
  noise = draw_noise(jax.random.key(5), module, 2, 22, 17)
  again = draw_noise(jax.random.key(5), module, 2, 22, 17)
  jax.tree.map(np.testing.assert_array_equal, noise, again)
  apply = jax.jit(module.apply)
  quiet, noisy = apply(variables, labels, codes), apply(variables, labels, codes, noise)
  assert np.abs(quiet - noisy).max() > 1e-3


def test_a_code_changes_its_region_and_little_else():
  """A code affects the neighbourhood of its region on the coarsest maps."""
  module, variables, _, codes = small()
  labels = jnp.zeros((1, 96, 96), int).at[:, :16, :16].set(1)
  apply = jax.jit(module.apply)
  before = apply(variables, labels, codes[:1])
  after = apply(variables, labels, codes[:1].at[:, 1].add(1.0))
  change = np.abs(before - after).max(axis=-1)[0]
  assert change[:16, :16].mean() > 1e-3 and change[90:, 90:].max() < 1e-6
  absent = apply(variables, labels, codes[:1].at[:, 2].add(1.0))
  np.testing.assert_array_equal(absent, before)


@pytest.mark.parametrize(('size', 'count'), [(512, 5), (256, 5), (128, 4), (64, 3), (32, 2)])
def test_the_smallest_map_keeps_regions_apart(size, count):
  assert num_upsamplings(size) == count
  assert min(Generator(3, num_upsamplings=count).sizes(size, size)['head_0']) >= 8


def test_blocks_are_doubled_as_the_original_does():
  sizes = {
    n: [s[0] for s in Generator(3, num_upsamplings=n).sizes(64, 64).values()] for n in (5, 6)
  }
  assert sizes == {5: [2, 4, 4, 8, 16, 32, 64], 6: [1, 2, 4, 8, 16, 32, 64]}


def test_numbers_of_upsamplings_out_of_range():
  with pytest.raises(ValueError, match='num_upsamplings is 7; choose 1 to 6'):
    jax.eval_shape(
      Generator(2, num_upsamplings=7).init,
      jax.random.key(0),
      jnp.zeros((1, 64, 64), int),
      jnp.zeros((1, 2, 512)),
    )


def test_initial_values():
  """Standard deviations as specified; noise, blending and biases start at zero."""
  module = ResBlock(128, 128, 3, 64, 64, 128, style=True)
  x, labels, codes = jnp.zeros((1, 2, 2, 128)), jnp.zeros((1, 2, 2), int), jnp.zeros((1, 3, 64))
  params = module.init(jax.random.key(0), x, labels, codes)['params']
  norm = params['ace_0']
  xavier = lambda fans: 0.02 * (2 / fans) ** 0.5
  for values, std in (
    (params['conv_0']['kernel'], (1 / (3 * 9 * 128)) ** 0.5),
    (norm['spade']['kernel'], xavier(9 * (128 + 128))),
    (norm['style_kernel'], xavier(9 * (64 + 128))),
    (norm['label_kernel'], xavier(64 + 64)),
    (norm['spade_shared']['kernel'], xavier(9 * (3 + 128))),
  ):
    np.testing.assert_allclose(np.std(values), std, rtol=0.05)
  for name in ('noise_scale', 'blend_scale', 'blend_shift', 'label_bias', 'style_bias'):
    assert not np.any(norm[name])
  limit = (1 / (9 * 128)) ** 0.5
  assert limit * 0.95 < np.abs(params['conv_0']['kernel']).max() <= limit


def unfactorised(labels, styles, kernel, scale=1.0):
  """The style branch of the original, computed from a map of styles."""
  image = jnp.arange(len(labels))[:, None, None]
  return scale * convolutions.conv3x3(styles[image, labels], kernel)


def test_style_maps_equal_the_convolution_of_a_map_of_styles():
  labels = jnp.asarray(np.random.default_rng(0).integers(0, 4, (2, 7, 9)))
  styles = jax.random.normal(jax.random.key(0), (2, 4, 6))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 6, 5))
  close(ace.style_maps(labels, styles, kernel), unfactorised(labels, styles, kernel), 1e-6)


def test_half_of_the_work_and_no_map_of_styles(monkeypatch):
  """FLOPs of the full generator at 256 px, counted by XLA before optimization."""
  # The Winograd form, which is used on a CPU, needs less than half of the products.
  monkeypatch.setattr(convolutions, 'conv3x3', convolutions.conv)
  labels = jax.ShapeDtypeStruct((1, 256, 256), jnp.int32)
  codes = jax.ShapeDtypeStruct((1, 19, 512), jnp.float32)

  def lowered(**fields):
    module = Generator(19, **fields)
    variables = jax.eval_shape(module.init, jax.random.key(0), labels, codes)
    return jax.jit(lambda *args: module.apply(*args)).lower(variables, labels, codes)

  # A width that no other array has identifies such maps.
  style_map = re.compile(r'tensor<\d+x\d+x\d+x509xf32>')
  ours = lowered()
  assert not style_map.search(lowered(label_width=509).as_text())
  monkeypatch.setattr(ace, 'style_maps', unfactorised)
  theirs = lowered()
  assert style_map.search(lowered(label_width=509).as_text())
  flops = [program.cost_analysis()['flops'] for program in (ours, theirs)]
  # A multiply-add counts as two, as in the specification.
  assert 600e9 < flops[1] < 700e9
  assert flops[0] <= 0.5 * flops[1], flops
