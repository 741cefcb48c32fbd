"""The PyTorch port has the same images, losses, penalties and updates."""

import copy

import golden_vectors as golden
import jax
import numpy as np
import psp_vectors
import pytest

torch = pytest.importorskip('torch', reason="PyTorch is missing: pip install -e '.[bench]'")

# ruff: noqa: E402
from step_jax import methods
from step_jax.bench.ports import running
from step_jax.bench.settings import Settings
from step_jax.methods.psp import cases, generator, stylegan2_state, train_stylegan2
from step_jax.methods.psp.ports import encoder_nets, nets, steps

WAYS = [way for way in running.ways(bfloat16=False, norms=False) if not way.compiled]


def tensor(array):
  """Converts an array, and NHWC to NCHW if it has four axes."""
  array = np.array(array)
  return torch.from_numpy(array.transpose(0, 3, 1, 2).copy() if array.ndim == 4 else array)


def nhwc(maps):
  return maps.detach().permute(0, 2, 3, 1).numpy()


def make(name):
  """Configuration, step, state, frozen variables and a batch at the smallest width.

  No parameter is zero, so that swapped parameters would be noticed.
  """
  settings = Settings.of(name, batch=4, width=16, size=32 if name == 'psp_step' else 16)
  config = cases.make_config(settings, settings.stage)
  if name == 'psp_step':
    config.model.body_depths = (1, 1, 2, 1)
  step = methods.abstract_step(config, config.data.crop)
  state = jax.jit(step.step.init)(jax.random.key(0))
  rng = np.random.default_rng(1)
  add = lambda x: np.asarray(x) + 0.1 * rng.standard_normal(x.shape, np.float32)
  state = state.replace(params=jax.tree.map(add, state.params))
  return config, step.step, state, cases.load_frozen(config), cases.random_batch(step.batch)


def assert_moved_alike(before, after, port):
  """Checks that parameters start equal to ours and that their updates agree closely."""

  def flat(tree):
    other = nets.load(copy.deepcopy(port), tree)
    return torch.cat([p.detach().flatten() for p in other.parameters()]).numpy()

  start = flat(before)
  moved = torch.cat([p.detach().flatten() for p in port.parameters()]).numpy() - start
  assert np.corrcoef(moved, flat(after) - start)[0, 1] > 0.99


def test_stylegan2_agrees_with_the_vectors():
  vectors = psp_vectors.load('04_generator_tiny')
  module, variables = stylegan2_state.generator_from_torch(psp_vectors.stored(vectors))
  port = nets.Generator(module.channels, module.style_dim, module.mapping_depth)
  nets.load(port, variables['params'])
  golden.assert_close(port.map(tensor(vectors['z1'])).detach(), vectors['w_of_z1'])
  w_plus = tensor(vectors['w_plus'])
  zeros = [torch.zeros(1, 1, side, side) for side in port.noise_sides]
  image = port.synthesize(w_plus, zeros)
  golden.assert_close(nhwc(image), vectors['y_wplus_zeronoise_nhwc'])
  const = variables['noise']['synthesis']
  noise = [const['b4']['conv']['const']]
  noise += [const[f'b{r}'][name]['const'] for r in (8, 16, 32) for name in ('conv_up', 'conv')]
  image = port.synthesize(w_plus, [tensor(x) for x in noise])
  golden.assert_close(nhwc(image), vectors['y_wplus_nhwc'])

  vectors = psp_vectors.load('07_discriminator_tiny')
  module, variables = stylegan2_state.discriminator_from_torch(psp_vectors.stored(vectors))
  judge = nets.load(nets.Discriminator(module.channels), variables['params'])
  for batch in (1, 2, 3, 4, 8):
    logits = judge(tensor(vectors['x_nhwc'][:batch])).detach()
    golden.assert_close(logits, vectors[f'logits_first{batch}'])


def torch_draws(draws):
  """Our random inputs for the port."""
  read = lambda x: [tensor(each) for each in x] if isinstance(x, list) else tensor(x)
  latents = [train_stylegan2.Latents(*map(read, draws[i])) for i in range(3)]
  return train_stylegan2.Draws(*latents, tensor(draws.pixels), None)


def test_steps_of_stylegan2_agree():
  """Losses of five steps; the first has both regularisers, the last one path lengths."""
  config, step, state, frozen, batch = make('stylegan2_step')
  params = jax.device_get(state.params)
  programs = [steps.StyleGAN2Step(config, params, frozen, batch, way) for way in WAYS]
  objectives = train_stylegan2.make_objectives(config)
  jitted = jax.jit(step.train_step)
  for i in range(5):
    key = jax.random.fold_in(jax.random.key(config.seed), i)
    draws = torch_draws(objectives.draw(key, config.batch_size))
    state, metrics = jitted(state, batch, frozen)
    for program in programs:
      terms = program.step(i, draws)
      names = {'loss_discriminator', 'loss_generator'}
      names |= {'r1', 'path'} if i == 0 else {'path'} if i == 4 else set()
      assert terms.keys() == names
      for name, term in terms.items():
        # Where a gradient is only rounding error, so is Adam's direction without a first moment.
        wanted = float(metrics[name])
        assert float(term) == pytest.approx(wanted, rel=1e-2 if i else 1e-4), (i, name)
  for program in programs:
    assert_moved_alike(
      params['discriminator'], state.params['discriminator'], program.discriminator
    )
    assert_moved_alike(params['generator'], state.params['generator'], program.generator)


def test_steps_of_psp_agree():
  """Terms and statistics of eight steps, including rectified ones and Lookahead."""
  config, step, state, frozen, batch = make('psp_step')
  params = jax.device_get(state.params)
  programs = [steps.PspStep(config, params, frozen, batch, way) for way in WAYS]
  size = config.data.crop[0]
  jitted = jax.jit(step.train_step)
  for i in range(8):
    key = jax.random.fold_in(jax.random.key(config.seed), i)
    noise = generator.random_noise(jax.random.split(key)[0], config.batch_size, size)
    state, metrics = jitted(state, batch, frozen)
    for program in programs:
      for name, term in program.step([tensor(x) for x in noise]).items():
        assert float(term) == pytest.approx(float(metrics[name]), rel=1e-3), (i, name)
  for program in programs:
    assert_moved_alike(params['encoder'], state.params['encoder'], program.encoder)
    golden.assert_close(
      program.encoder.body.bn.var, state.stats['encoder']['body']['bn']['var'], 1e-3
    )


@pytest.mark.parametrize('name', ['stylegan2_step', 'psp_step'])
def test_full_networks_have_as_many_parameters(name):
  """The numbers of the specification, computed from shapes."""
  count = lambda module: sum(p.numel() for p in module.parameters())
  with torch.device('meta'):
    if name == 'psp_step':
      assert count(encoder_nets.GradualStyleEncoder(18, 256)) == 267_136_704
    else:
      channels = generator.channel_table(1024)
      assert count(nets.Generator(channels, 512, 8)) == 30_370_060
      assert count(nets.Discriminator(channels)) == 29_012_513


@pytest.mark.parametrize('options', [dict(pad=1, gain=4.0), dict(pad=2), dict(pad=1, stride=2)])
def test_the_two_forms_of_the_filter_agree(options, monkeypatch):
  x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
  found = nets.blur(x, **options)
  monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
  golden.assert_close(nets.blur(x, **options), found)
