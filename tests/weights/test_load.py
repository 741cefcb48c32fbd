"""Networks and heads from the store, from files and with random weights, and their outputs."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import weight_files as files

from step_jax import cli
from step_jax.errors import WeightsError
from step_jax.evaluate import lpips
from step_jax.models.features import PIXEL_STD
from step_jax.weights import convert, find, load_features, load_heads

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / '17_lpips_alex.npz'


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'store'))
  return tmp_path / 'store'


def save(path, net, layers=None):
  return files.torch_save(path, files.torchvision(net, files.arrays(net, layers)))


def apply(features, images):
  with jax.default_matmul_precision('highest'):
    return features.module.apply({'params': features.params}, jnp.asarray(images, jnp.float32))


def test_from_the_store_and_from_a_file(tmp_path, store):
  source = save(tmp_path / 'x.pth', 'alexnet')
  convert(source)
  stored = load_features('alexnet', ['conv1', 'conv3'])
  direct = load_features('alexnet', ['conv1', 'conv3'], str(source))
  assert stored.label == f'alexnet@{stored.sha256[:8]}' and len(stored.sha256) == 64
  assert direct.label != stored.label and direct.lineage == stored.lineage == 'torchvision'
  jax.tree.map(np.testing.assert_array_equal, stored.params, direct.params)
  # Only what the taps need, in the structure that flax expects.
  image = jnp.zeros((1, 64, 64, 3))
  shapes = jax.eval_shape(stored.module.init, jax.random.key(0), image)['params']
  assert jax.tree.map(np.shape, stored.params) == jax.tree.map(jnp.shape, shapes)
  assert sorted(stored.params) == ['conv1', 'conv2', 'conv3', 'input']
  assert apply(stored, image)['conv3'].shape == (1, 3, 3, 384)


def test_readers_of_formats_are_imported_when_a_file_needs_them():
  code = (
    'import sys, step_jax.weights; print(sorted({"h5py", "pooch", "safetensors"} & {*sys.modules}))'
  )
  found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert found.stdout == '[]\n'


def test_missing_weights_say_how_to_get_them(store):
  with pytest.raises(WeightsError) as error:
    load_features('vgg16', ['conv1_1'])
  for part in (str(store), 'weights get vgg16', 'weights convert', '--features squeezenet1_1'):
    assert part in str(error.value)
  with pytest.raises(WeightsError, match='weights get lpips_vgg') as error:
    load_heads('lpips_vgg')
  assert '--features' not in str(error.value)
  with pytest.raises(WeightsError, match='no weights file at /nowhere'):
    find('vgg16', '/nowhere')
  with pytest.raises(WeightsError, match='no weights are called'):
    find('resnet')


def test_the_package_has_a_net_and_its_heads(tmp_path):
  taps = list(load_heads('lpips_squeeze').weights)
  bundled = load_features('squeezenet1_1', taps)
  # The net of all results to date, whose digest is part of their protocols.
  assert bundled.label == 'squeezenet1_1@9f37e7cf' and bundled.lineage == 'caffe-squeezenet'
  images = np.linspace(-1, 1, 64 * 64 * 3, dtype=np.float32).reshape(1, 64, 64, 3)
  assert all(np.asarray(tap).max() > 1 for tap in apply(bundled, images).values())
  convert(save(tmp_path / 'x.pth', 'squeezenet1_1'))
  # The user's net takes precedence.
  assert load_features('squeezenet1_1', taps).lineage == 'torchvision'


def test_the_bundled_files_are_what_convert_makes(tmp_path):
  for name, source in (
    ('squeezenet1_1', 'squeezenet1_1_features.npz'),
    ('lpips_squeeze', 'lpips_v0_1_squeeze_heads.npz'),
  ):
    made = convert(files.shared(f'weights/{source}'), out=tmp_path / name)
    assert made.read_bytes() == find(name).read_bytes()


def test_wrong_net_in_the_file(tmp_path):
  source = save(tmp_path / 'x.pth', 'squeezenet1_1')
  own = convert(source, out=tmp_path / 'own.safetensors')
  for path in (source, own):
    with pytest.raises(WeightsError, match='holds squeezenet1_1, not alexnet'):
      load_features('alexnet', ['conv1'], str(path))


def test_a_partial_network_supports_its_taps(tmp_path):
  own = str(convert(save(tmp_path / 'x.pth', 'vgg16', 4), out=tmp_path / 'o.safetensors'))
  features = load_features('vgg16', ['conv2_2', 'conv1_1', 'conv1_1'], own)
  assert sorted(features.params) == ['conv1_1', 'conv1_2', 'conv2_1', 'conv2_2', 'input']
  assert list(apply(features, np.zeros((1, 8, 8, 3)))) == ['conv2_2', 'conv1_1']
  assert 'pool2' in apply(load_features('vgg16', ['pool2'], own), np.zeros((1, 8, 8, 3)))
  with pytest.raises(WeightsError) as error:
    load_features('vgg16', ['conv1_1', 'conv3_1'], own)
  for part in ('only up to conv2_2', 'conv1_1, conv1_2', 'need conv3_1', 'features.taps'):
    assert part in str(error.value)


def test_taps_and_names_that_do_not_exist():
  with pytest.raises(WeightsError, match="no tap 'conv9'"):
    load_features('vgg16', ['conv9'], 'random')
  with pytest.raises(WeightsError, match='features.taps'):
    load_features('vgg16', [], 'random')
  with pytest.raises(WeightsError, match='no feature net'):
    load_features('lpips_vgg', ['conv1_1'], 'random')
  with pytest.raises(WeightsError, match='no heads'):
    load_heads('vgg16')


@pytest.mark.parametrize('net', ['vgg16', 'vgg19', 'squeezenet1_1', 'alexnet'])
def test_random_features(net):
  deep = {'squeezenet1_1': 'fire9', 'alexnet': 'conv5'}.get(net, 'conv4_1')
  first = 'conv1_1' if net.startswith('vgg') else 'conv1'
  features = load_features(net, [first, deep], 'random')
  assert (features.label, features.sha256) == ('random', '')
  again = load_features(net, [first], 'random')
  np.testing.assert_array_equal(features.params[first]['kernel'], again.params[first]['kernel'])
  images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3))
  taps = apply(features, images)
  for tap in (first, deep):  # He initialization preserves the scale.
    assert 0.2 < float(jnp.sqrt(jnp.mean(taps[tap] ** 2))) / PIXEL_STD < 5


def test_random_features_never_change():
  kernel = load_features('vgg16', ['conv1_1'], 'random').params['conv1_1']['kernel']
  expected = [0.331864, -0.068589, -0.122976]
  np.testing.assert_allclose(kernel[0, 0, 0, :3], expected, atol=1e-5)
  np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / 27), rtol=0.05)


def test_heads(tmp_path, store):
  ours = files.arrays('lpips_squeeze')
  np.savez(tmp_path / 'x.npz', **{f'lin{i}': array for i, array in enumerate(ours.values())})
  convert(tmp_path / 'x.npz')
  heads = load_heads('lpips_squeeze')
  assert heads.net == 'squeezenet1_1' and heads.label == f'lpips_squeeze@{heads.sha256[:8]}'
  assert list(heads.weights) == ['conv1', 'fire3', 'fire5', 'fire6', 'fire7', 'fire8', 'fire9']
  for tap, weights in heads.weights.items():
    np.testing.assert_array_equal(weights, ours[tap])
  with pytest.raises(WeightsError, match='holds lpips_squeeze, not lpips_vgg'):
    load_heads('lpips_vgg', str(store / 'lpips_squeeze.safetensors'))


def first_layer_by_hand(images, kernel, bias, mean_bgr, stride):
  """conv1 of a BGR network, without padding, computed from its documentation."""
  pixels = ((images + 1) * 127.5)[..., ::-1] - np.array(mean_bgr)
  patches = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), (1, 2))[:, ::stride, ::stride]
  return np.maximum(np.einsum('bhwcij,ijco->bhwo', patches, kernel.astype(np.float64)) + bias, 0)


def test_real_squeezenet():
  path = files.shared('weights/squeezenet1_1_features.npz')
  features = load_features('squeezenet1_1', ['conv1', 'fire3', 'fire9'], str(path))
  images = np.random.default_rng(0).uniform(-1, 1, (1, 65, 65, 3)).astype(np.float32)
  taps = apply(features, images)
  with np.load(path) as file:
    expected = first_layer_by_hand(images, file['conv1/w'], file['conv1/b'], (104, 117, 123), 2)
  np.testing.assert_allclose(taps['conv1'], expected, rtol=1e-4, atol=1e-2)
  assert {tap: taps[tap].shape[1:] for tap in taps} == {
    'conv1': (32, 32, 64),
    'fire3': (16, 16, 128),
    'fire9': (4, 4, 512),
  }
  assert all(np.isfinite(tap).all() and tap.max() > 0 for tap in taps.values())


# First weight and first bias of every layer of the published VGG16, its kernels for BGR first.
VGG16 = {
  **{'conv1_1': (0.42947057, 0.73429835), 'conv1_2': (0.16621928, -0.30912212)},
  **{'conv2_1': (-0.0089029632, -0.04577766), 'conv2_2': (-0.0023012366, -0.064185418)},
  **{'conv3_1': (0.002486315, -0.074358866), 'conv3_2': (-0.01032663, 0.019675018)},
  **{'conv3_3': (0.0024918285, 0.035415243), 'conv4_1': (-0.012453815, 0.013485669)},
  **{'conv4_2': (0.0071165422, 0.023680462), 'conv4_3': (-0.0041355654, 0.03757768)},
  **{'conv5_1': (-0.00060689341, 0.097223252), 'conv5_2': (-0.0011261065, 0.21327873)},
  'conv5_3': (0.00040788297, 0.18837857),
}


def convert_by_command(*paths):
  for path in paths:
    assert cli.main(['weights', 'convert', str(path)]) == 0


def test_real_vgg16():
  path = files.shared('weights/vgg16.npz')
  convert_by_command(path)
  features = load_features('vgg16', list(VGG16))
  assert features.lineage == 'caffe-vgg'
  for layer, (weight, bias) in VGG16.items():
    # Ours reads RGB, so the published net's first channel, blue, is our last.
    first = (0, 0, -1 if layer == 'conv1_1' else 0, 0)
    np.testing.assert_allclose(features.params[layer]['kernel'][first], weight, rtol=1e-6)
    np.testing.assert_allclose(features.params[layer]['bias'][0], bias, rtol=1e-6)
  images = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
  taps = apply(features, images)
  with np.load(path) as file:
    kernel, bias = file['block1_conv1/kernel'], file['block1_conv1/bias']
  expected = first_layer_by_hand(images, kernel, bias, (103.939, 116.779, 123.68), 1)
  np.testing.assert_allclose(taps['conv1_1'][:, 1:-1, 1:-1], expected, rtol=1e-4, atol=1e-2)
  assert all(np.isfinite(tap).all() and tap.max() > 0 for tap in taps.values())


def test_real_lpips_of_alexnet():
  """The authors' example images have their published distances, 0.722 and 0.138."""
  convert_by_command(
    files.shared('weights/alexnet.safetensors'),
    files.shared('weights/lpips_v0_1_alex_heads.npz'),
  )
  learned = lpips.load('alex')
  assert learned.name == 'lpips-alex-0.1'
  folder = files.shared('golden/lpips')
  read = lambda name: np.asarray(Image.open(folder / f'{name}.png').convert('RGB'))[None]
  reference, *others = (
    learned.features(learned.params, read(name)) for name in ('ex_ref', 'ex_p0', 'ex_p1')
  )
  found = [learned.compare(learned.params, reference, other)[0] for other in others]
  np.testing.assert_allclose(found, [0.72188, 0.13757], atol=1e-5)


def test_real_heads():
  for name in ('alex', 'vgg', 'squeeze'):
    path = files.shared(f'weights/lpips_v0_1_{name}_heads.npz')
    heads = load_heads(f'lpips_{name}', str(path))
    assert all((weights >= 0).all() for weights in heads.weights.values())


# Mean of each tap, by the same nets in layers of PyTorch 2.13, in float64.
PYTORCH = {
  'vgg16': ((32, 48), {'conv1_2': 0.6346390, 'conv2_2': 1.0405112, 'conv3_3': 1.2596782}),
  'alexnet': (
    (64, 75),
    {
      **{'conv1': 0.7229359, 'conv2': 1.3242407, 'conv3': 1.5849490},
      **{'conv4': 1.2515884, 'conv5': 1.1593776},
    },
  ),
  'squeezenet1_1': (
    (64, 75),
    {
      **{'conv1': 0.7361755, 'fire3': 1.9354494, 'fire5': 3.0065138, 'fire6': 4.3827876},
      **{'fire7': 4.5721282, 'fire8': 4.9125512, 'fire9': 4.0735116},
    },
  ),
}


@pytest.mark.parametrize('net', PYTORCH)
def test_nets_match_pytorch(net, tmp_path):
  (height, width), means = PYTORCH[net]
  random = np.random.RandomState(0)
  state = files.torchvision(net, files.arrays(net, 7 if net == 'vgg16' else None))
  del state['classifier.1.weight']
  for name in sorted(state):
    value = random.standard_normal(state[name].shape)
    scale = 0.1 if value.ndim == 1 else np.sqrt(2 / np.prod(value.shape[1:]))
    state[name] = (scale * value).astype(np.float32)
  path = files.torch_save(tmp_path / 'x.pth', state, '2017')
  features = load_features(net, list(means), str(path))
  images = np.random.RandomState(1).uniform(-1, 1, (1, height, width, 3))
  for tap, activations in apply(features, images).items():
    np.testing.assert_allclose(activations.mean() / PIXEL_STD, means[tap], rtol=1e-5)


def drawn(vectors, prefix):
  """Parameters by the recipe of the reference vectors (psp.md, section 7)."""
  random = np.random.RandomState(int(vectors[f'{prefix}_seed']))
  columns = [vectors[f'{prefix}_{column}'] for column in ('keys', 'shapes', 'loc', 'scale', 'abs')]
  drawn = {}
  for key, shape, loc, scale, absolute in zip(*columns, strict=True):
    value = random.standard_normal(json.loads(str(shape)))
    drawn[str(key)] = (loc + scale * (abs(value) if absolute else value)).astype(np.float32)
  return drawn


def test_lpips_of_alexnet_matches_the_reference(tmp_path):
  """LPIPS from the .pth files of AlexNet and of the heads, against PyTorch's LPIPS."""
  path = GOLDEN if GOLDEN.exists() else files.shared('golden/psp/17_lpips_alex.npz')
  with np.load(path) as file:
    vectors = dict(file)
  state = {f'features.{key}': array for key, array in drawn(vectors, 'net').items()}
  net = files.torch_save(tmp_path / 'net.pth', state)
  state = {f'lin{k[0]}.model{k[1:]}': array for k, array in drawn(vectors, 'lin').items()}
  lin = files.torch_save(tmp_path / 'lin.pth', state, 'legacy')
  heads = load_heads('lpips_alex', str(lin))
  features = load_features('alexnet', list(heads.weights), str(net))
  # LPIPS uses its own rounding of ImageNet's mean and standard deviation.
  mean, deviation = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
  features.params['input'] = {
    'mean': np.float32((mean + 1) * 127.5),
    'scale': np.float32(PIXEL_STD / (deviation * 127.5)),
  }
  x, y = (apply(features, vectors[f'{side}_nhwc']) for side in 'xy')
  for i, (tap, weights) in enumerate(heads.weights.items()):
    a, b = (t[tap] / (np.linalg.norm(t[tap], axis=-1, keepdims=True) + 1e-10) for t in (x, y))
    found = np.mean(np.sum((a - b) ** 2 * weights, axis=-1), axis=(1, 2))
    np.testing.assert_allclose(found, vectors['per_layer'][i], rtol=1e-4)
    np.testing.assert_allclose(np.mean(a), vectors['feat_mean'][i], rtol=1e-4)
