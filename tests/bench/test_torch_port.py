"""The PyTorch port has the same outputs, losses and updates for the same parameters."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="PyTorch is missing: pip install -e '.[bench]'")

# ruff: noqa: E402
from step_jax import methods
from step_jax.bench.ports import running
from step_jax.bench.settings import Settings
from step_jax.methods.step import cases, functions, searches
from step_jax.methods.step import networks as method_networks
from step_jax.methods.step.ports import nets as torch_nets
from step_jax.methods.step.ports import searches as torch_searches
from step_jax.methods.step.ports import steps as torch_steps
from step_jax.methods.step.search import neighbors
from step_jax.methods.step.steps import mapper, translate

TOLERANCE = 1e-4
# Sizes at which no map of the discriminators shrinks to one pixel, and one with uneven padding.
SIZES = (64, 72)
WAYS = [way for way in running.ways(bfloat16=False) if not way.compiled]


def assert_close(actual, expected):
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape
  assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


def make(stage, size=64, features='vgg16'):
  """Configuration, state, frozen parameters and a batch of a stage at the smallest width."""
  settings = Settings.of('translate_step', size=size, batch=2, width=4, features=features)
  config = cases.make_config(settings, stage)
  step = methods.abstract_step(config, config.data.crop)
  state = jax.jit(step.step.init)(jax.random.key(0))
  return config, step, state, cases.load_frozen(config), cases.random_batch(step.batch)


def perturbed(tree):
  """Random parameters, because swapped zeros or ones would not be detected."""
  rng = np.random.default_rng(1)
  add = lambda x: np.asarray(x) + 0.1 * rng.standard_normal(x.shape).astype(np.float32)
  return jax.tree.map(add, tree)


def nchw(pictures):
  return running.to_float(torch.from_numpy(pictures).permute(0, 3, 1, 2))


def nhwc(maps):
  return maps.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('grouped', [False, True])
def test_networks_agree(size, grouped, monkeypatch):
  monkeypatch.setattr(torch_nets.InstanceNorm, 'grouped', grouped)
  config, _, state, frozen, batch = make('finetune', size)
  params = perturbed(jax.device_get(state.params))
  source, target = nchw(batch['source']), nchw(batch['target'])
  objectives = translate.make_objectives(config)

  encoder = running.load(torch_nets.StyleEncoder(width=8), params['style_encoder'])
  expected = objectives.encoder.apply(
    {'params': params['style_encoder']}, objectives.read(batch, 'target')
  )
  codes = encoder(target)
  for actual, wanted in zip(codes, expected, strict=True):
    assert_close(actual.detach(), wanted)

  generator = running.load(torch_nets.Generator(width=4), params['generator'])
  pictures = objectives.generator.apply(
    {'params': params['generator']}, objectives.read(batch, 'source'), expected[0]
  )
  assert_close(nhwc(generator(source, codes[0])), pictures)

  judge = running.load(torch_nets.MultiScaleDiscriminator(4), params['discriminator'])
  logits = objectives.discriminator.apply(
    {'params': params['discriminator']}, pictures, objectives.read(batch, 'source')
  )
  made = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
  for actual, wanted in zip(judge(made, source), logits, strict=True):
    assert_close(nhwc(actual), wanted)


def test_feature_nets_agree():
  config, step, _, frozen, batch = make('finetune')
  module = translate.models.VGG16(taps=tuple(config.features.taps))
  expected = module.apply({'params': frozen['features']}, batch['source'] * (2 / 255) - 1)
  port = running.load(torch_nets.VGG16(config.features.taps), frozen['features'])
  for actual, tap in zip(port(nchw(batch['source'])), config.features.taps, strict=True):
    assert_close(nhwc(actual), expected[tap])


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def test_networks_of_the_released_size_have_as_many_parameters():
  settings = Settings.of('translate_step', size=64)
  config = cases.make_config(settings, 'finetune')
  shapes = methods.abstract_step(config, config.data.crop)
  trees = {**shapes.state.params, **shapes.frozen}
  ports = {
    'style_encoder': torch_nets.StyleEncoder(),
    'generator': torch_nets.Generator(),
    'discriminator': torch_nets.MultiScaleDiscriminator(),
    'features': torch_nets.VGG16(config.features.taps),
  }
  numbers = {name: sum(p.numel() for p in port.parameters()) for name, port in ports.items()}
  assert numbers == {name: count(tree) for name, tree in trees.items()}
  assert numbers['style_encoder'] == 1_897_232 and numbers['generator'] == 11_136_091


def test_a_parameter_of_only_one_network_is_an_error():
  _, _, state, _, _ = make('pretrain')
  tree = jax.device_get(state.params['style_encoder'])
  with pytest.raises(ValueError, match='conv0.kernel'):
    running.load(torch_nets.StyleEncoder(width=12), tree)
  with pytest.raises(ValueError, match='mean.bias'):
    running.load(torch_nets.StyleEncoder(width=8), {k: v for k, v in tree.items() if k != 'mean'})


@pytest.mark.parametrize('stage', ['pretrain', 'translate', 'finetune'])
def test_steps_agree(stage):
  """Losses of two steps; the second depends on gradients and updates of the first."""
  config, step, state, frozen, batch = make(stage, features='vgg16_low')
  # Where a gradient is only rounding error, so is Adam's direction without a first moment.
  config.optimizer.b1 = 0.0
  params = jax.device_get(state.params)
  programs = [torch_steps.STEPS[config.method](config, params, frozen, batch, way) for way in WAYS]
  jitted = jax.jit(step.step.train_step)
  for i in range(2):
    state, metrics = jitted(state, batch, frozen)
    for program in programs:
      for name, loss in program.call().items():
        assert float(loss) == pytest.approx(float(metrics[name]), rel=(1e-4, 2e-3)[i]), name
  if stage != 'pretrain':
    kernel = np.asarray(state.params['generator']['decoder']['rgb']['kernel'])
    moved = kernel - params['generator']['decoder']['rgb']['kernel']
    for program in programs:
      port = program.generator.decoder.rgb.kernel.detach().permute(2, 3, 1, 0).numpy()
      ours = port - params['generator']['decoder']['rgb']['kernel']
      assert np.corrcoef(moved.ravel(), ours.ravel())[0, 1] > 0.99


@pytest.mark.parametrize('way', running.ways(bfloat16=True)[:4], ids=str)
def test_autocast_trains_too(way):
  config, step, state, frozen, batch = make('finetune', features='vgg16_low')
  params = jax.device_get(state.params)
  full = dict(compiled=False, channels_last=way.channels_last, grouped=way.grouped)
  exact = torch_steps.TranslateStep(config, params, frozen, batch, running.Way(**full))
  rounded = torch_steps.TranslateStep(config, params, frozen, batch, way)
  for name, loss in rounded.call().items():
    wanted = float(exact.call()[name])
    assert float(loss) == pytest.approx(wanted, rel=0.05) and float(loss) != wanted


@pytest.mark.parametrize('what', ['encode', 'generate', 'translate'])
def test_inference_agrees(what):
  config, _, state, _, batch = make('finetune')
  params = perturbed(jax.device_get(state.params))
  batch['z'] = np.random.default_rng(0).standard_normal((2, 8), np.float32)
  modules = method_networks.style_encoder(config), method_networks.generator(config)
  codes = functions.encode(modules[0], params, batch['target'])
  expected = {
    'encode': codes,
    'generate': functions.generate(modules[1], params, batch['source'], batch['z']),
    'translate': functions.generate(modules[1], params, batch['source'], codes),
  }[what]
  for way in WAYS:
    found = torch_steps.Inference(config, params, batch, what, way).call()
    if what == 'encode':
      assert_close(found, expected)
    else:
      # Rounding to integers may differ by one.
      difference = nhwc(found).astype(int) - np.asarray(expected, int)
      assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.01


def test_mining_finds_the_same_neighbours():
  vectors = searches.random_styles(40, 300)
  expected = neighbors.find_neighbors(vectors, 5, 13)
  nearest, farthest = torch_searches.find_neighbors(torch.from_numpy(vectors), 5, 13)
  np.testing.assert_array_equal(nearest, expected.nearest)
  np.testing.assert_array_equal(farthest, expected.farthest)


def test_all_ways_find_the_same_samples():
  codes, samples = searches.random_codes(600)
  expected = np.asarray(mapper.nearest_samples(codes, samples))
  tensors = torch.from_numpy(codes), torch.from_numpy(samples)
  for distance in (torch.cdist, torch_searches.products):
    found = torch_searches.nearest_by_torch(*tensors, distance)
    np.testing.assert_array_equal(found, expected)
  for function, package in (
    (torch_searches.nearest_by_ball_tree, 'sklearn'),
    (torch_searches.nearest_by_faiss, 'faiss'),
  ):
    pytest.importorskip(package, reason=f"{package} is missing: pip install -e '.[bench]'")
    np.testing.assert_array_equal(function(codes, samples), expected)
