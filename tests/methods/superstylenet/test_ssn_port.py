"""The PyTorch port against vectors of the original."""

import numpy as np
import pytest
import ssn_vectors
from test_ssn_networks import C, L, close

torch = pytest.importorskip('torch', reason="PyTorch is missing: pip install -e '.[bench]'")

# ruff: noqa: E402
from step_jax import weights
from step_jax.bench.ports import running
from step_jax.bench.settings import Settings
from step_jax.config import FEATURES
from step_jax.methods.superstylenet import cases, torch_state, training
from step_jax.methods.superstylenet.generator import Generator
from step_jax.methods.superstylenet.ports import nets, steps
from step_jax.models.features import read_raw_pixels

WAYS = [way for way in running.ways(bfloat16=False) if not way.compiled]
in_each_way = pytest.mark.parametrize('way', WAYS, ids=str)


def nchw(array):
  return torch.from_numpy(np.array(array)).permute(0, 3, 1, 2)


def nhwc(maps):
  return maps.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize('channels_last', [False, True])
def test_generator(channels_last):
  vectors = ssn_vectors.load('torch_generator')
  variables = torch_state.generator(ssn_vectors.part(vectors, 'p:'))
  port = nets.Generator(*variables, channels_last)
  sizes = Generator(L, style_size=C, width=2).sizes(64, 64)
  labels = torch.from_numpy(vectors['label']).long()
  maps = nets.Labels(labels, L, sizes.values(), channels_last).maps
  prefix = lambda name: f'noise:{name.replace("middle", "G_middle")}_ACE_'
  noise = {
    name: {
      f'ace_{norm}': nchw(value) for norm, value in ssn_vectors.part(vectors, prefix(name)).items()
    }
    for name in sizes
  }
  with torch.no_grad():
    for train in (False, True):
      out = port(maps, sizes, torch.from_numpy(vectors['codes']), noise, train)
      close(nhwc(out), vectors['out_train' if train else 'out_eval'])


@pytest.mark.parametrize('grouped', [False, True])
def test_discriminator(grouped):
  vectors = ssn_vectors.load('torch_disc')
  port = nets.Discriminator(*torch_state.discriminator(ssn_vectors.part(vectors, 'p:')), grouped)
  x = nchw(vectors['x'])
  for mode in ('eval', 'train'):
    for i, scale in enumerate(port(x[:, :L], x[:, L:], mode == 'train')):
      for j, maps in enumerate(scale):
        close(nhwc(maps), vectors[f'{mode}:{i}_{j}'])


@in_each_way
def test_three_steps_match_the_original(way, monkeypatch):
  vectors = ssn_vectors.load('torch_step')
  networks = {'generator': 'G/p:', 'discriminator': 'D/p:'}
  variables = zip(
    *(getattr(torch_state, k)(ssn_vectors.part(vectors, v)) for k, v in networks.items()),
    strict=True,
  )
  state = [dict(zip(networks, trees, strict=True)) for trees in variables]
  config = cases.make_config(Settings.of('superstylenet_step', batch=2, width=2), 'superstylenet')
  config.data.classes, config.ema_decay, config.loss.perceptual = L, 0.0, 0.0
  config.model.num_upsamplings = 5
  # The step's input format: bytes and raw codes.
  batch = {
    'image': (vectors['real'] + 1) * 127.5,
    'labels': vectors['label'],
    'codes': (vectors['codes'] + 1) / 2,
  }
  monkeypatch.setattr(steps.Step, 'draw_noise', lambda self: {})
  program = steps.Step(config, state, {}, batch, way)
  for i, row in enumerate(vectors['losses']):
    terms = program.call()
    terms['feature_matching'] *= 10
    names = ('gan', 'feature_matching', 'discriminator_fake', 'discriminator_real')
    found = [float(terms[name]) for name in names]
    np.testing.assert_allclose(found, row, rtol=(1e-5, 1e-3)[i > 0], atol=1e-4)


@pytest.mark.parametrize('name', ['squeezenet1_1', 'vgg19'])
def test_perceptual_loss(name):
  net = FEATURES[name]
  taps = net['taps'][:3], net['tap_weights'][:3]
  features = weights.load_features(name, taps[0], 'random')
  params, tap_weights = read_raw_pixels(features.params), dict(zip(*taps, strict=True))
  fake, real = np.random.default_rng(0).uniform(-1, 1, (2, 1, 31, 32, 3)).astype(np.float32)
  only = {'gan': 0, 'feature_matching': 0, 'perceptual': 1}
  objectives = training.Objectives(None, None, only, features.module, tap_weights)
  expected = objectives.generator_terms(fake, real, (), {'features': params})['perceptual']
  port = nets.FeatureNet(name, taps[0], params)
  found = steps.perceptual(port, tap_weights, nchw(fake), nchw(real))
  np.testing.assert_allclose(float(found), expected, rtol=1e-5)
