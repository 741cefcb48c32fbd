"""Every published layout is converted to ours; other files are refused."""

import collections
import hashlib
import io
import os
import pickle
import re
import zipfile
import zlib

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import weight_files as files

from step_jax.errors import WeightsError
from step_jax.weights import convert, known, layouts, load_heads, load_inception, nets
from step_jax.weights.tensors import Tensor

VGG_MEAN, SSD_MEAN = (123.68, 116.779, 103.939), (123, 117, 104)
STD = np.float32([58.395, 57.12, 57.375])
IMAGENET = (123.675, 116.28, 103.53), STD.mean() / STD


def load(path):
  with safetensors.safe_open(path, 'np') as file:
    return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def expect(ours, mean, scale, bgr):
  first = next(name for name in ours if name.endswith('kernel'))
  ours = dict(ours)
  if bgr:
    ours[first] = ours[first][:, :, [2, 1, 0]]
  return {'input/mean': np.float32(mean), 'input/scale': np.float32(scale), **ours}


def assert_same(found, expected):
  assert sorted(found) == sorted(expected)
  for name, array in expected.items():
    np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)
    assert found[name].dtype == np.float32


def write_npy(path, ours):
  layers = collections.defaultdict(lambda: [None, None])
  for name, array in ours.items():
    layer, leaf = name.split('/')
    layers[layer][leaf == 'bias'] = array
  np.save(path, {**layers, 'fc6': [np.ones((2, 2)), np.ones(2)]}, allow_pickle=True)
  return path


@pytest.mark.parametrize('net', ['vgg16', 'vgg19', 'alexnet', 'squeezenet1_1'])
@pytest.mark.parametrize('kind', [*files.KINDS, 'safetensors'])
def test_torchvision(net, kind, tmp_path):
  # The two VGG nets are identical up to conv3_3.
  ours = files.arrays(net, 9 if net == 'vgg19' else 5)
  state = files.torchvision(net, ours)
  path = tmp_path / f'my_{net}.pth'
  if kind == 'safetensors':
    whole = {name: np.ascontiguousarray(array) for name, array in state.items()}
    safetensors.numpy.save_file(whole, path)
  else:
    files.torch_save(path, state, kind)
  found, metadata = load(convert(path, out=tmp_path / 'out.safetensors'))
  ours = {name: x * STD.mean() if x.ndim == 1 else x for name, x in ours.items()}
  assert_same(found, expect(ours, *IMAGENET, bgr=False))
  assert metadata == {
    'format': 'step_jax.weights/1',
    'name': net,
    'source': path.name,
    'source_sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
    'lineage': 'torchvision',
  }


def test_layers_that_two_nets_share_are_of_vgg16_unless_named(tmp_path):
  path = files.torch_save(tmp_path / 'x.pth', files.torchvision('vgg19', files.arrays('vgg19', 4)))
  for name, expected in (('', 'vgg16'), ('vgg19', 'vgg19')):
    _, metadata = load(convert(path, name, out=tmp_path / 'o'))
    assert metadata['name'] == expected


@pytest.mark.parametrize('old', [True, False])
def test_keras(old, tmp_path):
  ours = files.arrays('vgg16', 6)
  found, metadata = load(
    convert(files.keras_h5(tmp_path / 'vgg.h5', ours, old), out=tmp_path / 'o')
  )
  assert_same(found, expect(ours, VGG_MEAN, (1, 1, 1), bgr=True))
  assert metadata['lineage'] == 'caffe-vgg'


def test_whole_vgg16_npy_of_step(tmp_path):
  ours = {name: np.full(a.shape, a.flat[0]) for name, a in files.arrays('vgg16').items()}
  ours['conv1_1/kernel'] = files.arrays('vgg16', 1)['conv1_1/kernel']
  found, metadata = load(convert(write_npy(tmp_path / 'vgg16.npy', ours), out=tmp_path / 'o'))
  assert_same(found, expect(ours, VGG_MEAN, (1, 1, 1), bgr=True))
  assert len(found) == 28 and metadata['name'] == 'vgg16'


def test_npy_as_python_2_wrote_it(tmp_path):
  """Protocol 2 of Python 2, with text for raw bytes and the old module numpy.core."""
  ours = files.arrays('vgg16', 2)

  def array(values):
    shape = files.numbers(values.shape)
    kind = files.call(files.name('numpy', 'dtype'), files.text('f4'), b'K\x00', b'K\x01')
    kind += files.tuple_of(b'K\x03', b'U\x01<', b'NNN', b'J\xff\xff\xff\xff' * 2, b'K\x00') + b'b'
    data = b'T' + len(values.tobytes()).to_bytes(4, 'little') + values.tobytes()
    start = [files.name('numpy', 'ndarray'), files.tuple_of(b'K\x00'), b'U\x01b']
    made = files.call(files.name('numpy.core.multiarray', '_reconstruct'), *start)
    return made + files.tuple_of(b'K\x01', shape, kind, b'\x89', data) + b'b'

  layers = b'}('
  for layer in ('conv1_1', 'conv1_2'):
    pair = array(ours[f'{layer}/kernel']) + array(ours[f'{layer}/bias'])
    layers += b'U\x07' + layer.encode() + b'](' + pair + b'e'
  kind = files.call(files.name('numpy', 'dtype'), files.text('O8'), b'K\x00', b'K\x01')
  start = [files.name('numpy', 'ndarray'), files.tuple_of(b'K\x00'), b'U\x01b']
  whole = files.call(files.name('numpy.core.multiarray', '_reconstruct'), *start)
  whole += files.tuple_of(b'K\x01', b')', kind, b'\x89', b']' + layers + b'ua') + b'b'
  path = files.npy_of(tmp_path / 'vgg16.npy', files.program(whole))
  assert sorted(np.load(path, allow_pickle=True, encoding='latin1').item()) == [
    'conv1_1',
    'conv1_2',
  ]
  found, _ = load(convert(path, out=tmp_path / 'o'))
  assert_same(found, expect(ours, VGG_MEAN, (1, 1, 1), bgr=True))


@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_npy_as_python_3_wrote_it(protocol, tmp_path):
  ours = files.arrays('vgg16', 1)
  pair = [np.asfortranarray(ours['conv1_1/kernel']), ours['conv1_1/bias'].astype('>f8')]
  stream = pickle.dumps(np.array({'conv1_1': pair}), protocol)
  found, _ = load(convert(files.npy_of(tmp_path / 'vgg16.npy', stream), 'vgg16', tmp_path / 'o'))
  assert_same(found, expect(ours, VGG_MEAN, (1, 1, 1), bgr=True))


def test_squeezenet_npz(tmp_path):
  ours = files.arrays('squeezenet1_1')
  named = {}
  for path, array in ours.items():
    name = path.replace('squeeze', 'squeeze1x1').replace('expand1', 'expand1x1')
    name = name.replace('expand3', 'expand3x3')
    named[name.replace('kernel', 'w').replace('bias', 'b')] = array
  np.savez_compressed(tmp_path / 'x.npz', **named)
  found, metadata = load(convert(tmp_path / 'x.npz', out=tmp_path / 'o'))
  assert_same(found, expect(ours, (123, 117, 104), (1, 1, 1), bgr=True))
  assert metadata['lineage'] == 'caffe-squeezenet'


@pytest.mark.parametrize('name', ['lpips_alex', 'lpips_vgg', 'lpips_squeeze'])
def test_lpips_heads(name, tmp_path):
  ours = files.arrays(name)
  np.savez(tmp_path / 'x.npz', **{f'lin{i}': array for i, array in enumerate(ours.values())})
  heads = {f'lin{i}.model.1.weight': a[None, :, None, None] for i, a in enumerate(ours.values())}
  files.torch_save(tmp_path / 'x.pth', heads, 'legacy')
  for file in ('x.npz', 'x.pth'):
    found, metadata = load(convert(tmp_path / file, out=tmp_path / 'o'))
    assert_same(found, ours)
    assert metadata['name'] == name


OLD_HEADS = ['lpips_alex_v0.0', 'lpips_vgg_v0.0', 'lpips_squeeze_v0.0']


@pytest.mark.parametrize('name', OLD_HEADS)
def test_lpips_heads_of_version_0_0_look_like_those_of_0_1_and_are_told_by_name(name, tmp_path):
  ours = files.arrays(name)
  heads = {f'lin{i}.model.1.weight': a[None, :, None, None] for i, a in enumerate(ours.values())}
  source = files.torch_save(tmp_path / 'x.pth', heads, 'legacy')
  found, metadata = load(convert(source, name, tmp_path / 'o'))
  assert_same(found, ours)
  assert (metadata['name'], metadata['lineage']) == (name, 'lpips-0.0')
  _, metadata = load(convert(source, out=tmp_path / 'o'))
  assert (metadata['name'], metadata['lineage']) == (name.removesuffix('_v0.0'), 'lpips-0.1')


@pytest.mark.parametrize('name', OLD_HEADS)
def test_published_heads_of_version_0_0_need_no_name(name, tmp_path, monkeypatch):
  """Identified by their folders: v0.0/alex.pth and v0.1/alex.pth."""
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'store'))
  net = name.split('_')[1]
  heads = {
    f'lin{i}.model.1.weight': a[None, :, None, None]
    for i, a in enumerate(files.arrays(name).values())
  }
  (tmp_path / 'v0.0').mkdir()
  source = files.torch_save(tmp_path / 'v0.0' / f'{net}.pth', heads, 'legacy')
  with pytest.raises(WeightsError, match='damaged or altered'):
    convert(source)
  published = known.Published(name, f'v0.0/{net}.pth', known.digest(source))
  monkeypatch.setattr(known, 'PUBLISHED', (published,))
  stored = convert(source)
  assert stored.name == f'{name}.safetensors'
  assert load_heads(name).net == load_heads(name, str(source)).net == nets.HEADS[name][0]
  newer = name.removesuffix('_v0.0')
  for path in (source, stored):
    with pytest.raises(WeightsError, match=f'holds {name}, not {newer}; give a file of'):
      load_heads(newer, str(path))


def test_inception(tmp_path, monkeypatch):
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'store'))
  with pytest.raises(WeightsError, match='weights get inception') as error:
    load_inception()
  assert 'random' not in str(error.value)
  ours = files.arrays('inception')
  source = files.torch_save(tmp_path / 'x.pth', files.inception(ours))
  found, metadata = load(convert(source))
  assert_same(found, ours)
  assert (metadata['name'], metadata['lineage']) == ('inception', 'inception-2015-12-05')
  net = load_inception()
  assert net.label == f'inception@{net.sha256[:8]}' and net.lineage == metadata['lineage']
  kernel = net.params['Mixed_6b']['branch7x7_2']['conv']['kernel']
  np.testing.assert_array_equal(kernel, ours['Mixed_6b/branch7x7_2/conv/kernel'])
  with pytest.raises(WeightsError, match='holds inception, not vgg16'):
    convert(source, 'vgg16')


# CRC-32 of the lines `NAME [SHAPE]` of pytorch-fid's sorted state dict, without its classifier.
PYTORCH_FID = 0x260DEA0F


def inception_tensors():
  shapes = {path: np.broadcast_to(0, shape) for path, shape in nets.shapes('inception').items()}
  state = files.inception(shapes)
  return {name: Tensor(array.shape, lambda array=array: array) for name, array in state.items()}


def test_inception_has_the_names_and_shapes_of_pytorch_fid():
  layout = layouts.recognise(inception_tensors(), '', 'x.pth')
  lines = [f'{name} {list(layout.shape(path))}' for name, path in layout.paths.items()]
  assert len(lines) == 470
  assert zlib.crc32('\n'.join(sorted(lines)).encode()) == PYTORCH_FID


def test_another_inception_is_refused():
  tensors = inception_tensors()
  torchvision = tensors | {'AuxLogits.fc.bias': Tensor((1000,), None)}
  with pytest.raises(WeightsError, match="pytorch-fid's Inception, but it holds .AuxLogits"):
    layouts.recognise(torchvision, 'inception', 'x.pth')
  turned = tensors | {'Mixed_6b.branch7x7_2.conv.weight': Tensor((128, 128, 7, 1), None)}
  with pytest.raises(WeightsError, match=r'is \[128, 128, 7, 1\], expected \[128, 128, 1, 7\]'):
    layouts.recognise(turned, '', 'x.pth')


def test_inception_must_be_complete():
  paths = list(nets.shapes('inception'))
  assert nets.present_layers('inception', paths, 'x') == nets.layers('inception')
  without = [path for path in paths if not path.startswith('Mixed_7c')]
  with pytest.raises(WeightsError, match='x lacks Mixed_7c/branch1x1/bn/bias of inception'):
    nets.present_layers('inception', without, 'x')


def test_our_own_format_is_kept_to_the_byte(tmp_path):
  source = files.torch_save(
    tmp_path / 'x.pth', files.torchvision('alexnet', files.arrays('alexnet', 2))
  )
  first = convert(source, out=tmp_path / 'a.safetensors')
  again = convert(source, out=tmp_path / 'b.safetensors')
  own = convert(first, out=tmp_path / 'c.safetensors')
  in_place = convert(own, out=own)
  assert first.read_bytes() == again.read_bytes() == own.read_bytes() == in_place.read_bytes()


def test_goes_to_the_store_by_default(tmp_path, monkeypatch):
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'a' / 'store'))
  source = files.torch_save(
    tmp_path / 'x.pth', files.torchvision('alexnet', files.arrays('alexnet', 1))
  )
  assert convert(source) == tmp_path / 'a' / 'store' / 'alexnet.safetensors'
  assert [entry.name for entry in (tmp_path / 'a' / 'store').iterdir()] == ['alexnet.safetensors']


def vgg(layers=2, **changes):
  state = files.torchvision('vgg16', files.arrays('vgg16', layers))
  return {name: array for name, array in (state | changes).items() if array is not None}


REFUSED = {
  'too few layers': (vgg(1), '', 'vgg16 or squeezenet1_1'),
  'another net': (vgg(), 'alexnet', 'holds vgg16, not alexnet'),
  'an unknown net': (vgg(), 'vgg13', "no weights are called 'vgg13'"),
  'another shape': (
    vgg(**{'features.2.weight': np.ones((64, 64, 5, 5))}),
    '',
    r'features\.2\.weight is \[64, 64, 5, 5\], expected \[64, 64, 3, 3\]',
  ),
  'batch norm': (
    vgg(**{'features.1.running_mean': np.ones(64)}),
    '',
    r'looks like torchvision VGG16, but it holds .features\.1\.running_mean',
  ),
  'nothing known': ({'encoder.weight': np.ones(3)}, '', 'no net here: it holds .encoder.weight'),
  'no tensors': ({}, '', 'it holds nothing'),
  'a part of a layer missing': (
    vgg(3, **{'features.2.bias': None}),
    '',
    'lacks conv1_2/bias of vgg16',
  ),
  'a layer missing': (
    vgg(3, **{'features.2.bias': None, 'features.2.weight': None}),
    '',
    'lacks conv1_2/bias of vgg16',
  ),
  'the first missing': (
    vgg(3, **{'features.0.bias': None, 'features.0.weight': None}),
    '',
    'lacks conv1_1/bias',
  ),
  'values that are not finite': (vgg(**{'features.0.bias': np.full(64, np.nan)}), '', 'not finite'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refuses_and_leaves_nothing_behind(case, tmp_path):
  state, name, message = REFUSED[case]
  source = files.torch_save(tmp_path / 'x.pth', state)
  with pytest.raises(WeightsError, match=message) as error:
    convert(source, name or None, tmp_path / 'store' / 'out.safetensors')
  assert '\n' not in str(error.value)
  assert [entry.name for entry in tmp_path.iterdir()] == ['x.pth']


def test_heads_must_be_complete(tmp_path):
  np.savez(tmp_path / 'x.npz', lin0=np.ones(64), lin1=np.ones(192))
  with pytest.raises(WeightsError, match='lacks conv3 of lpips_alex'):
    convert(tmp_path / 'x.npz')


def test_one_layer_is_told_apart_by_name(tmp_path):
  source = files.torch_save(tmp_path / 'x.pth', vgg(1))
  found, metadata = load(convert(source, 'squeezenet1_1', tmp_path / 'o'))
  assert metadata['name'] == 'squeezenet1_1' and 'conv1/kernel' in found


def test_integers_are_not_weights(tmp_path):
  np.savez(tmp_path / 'x.npz', **{f'lin{i}': np.ones(n, int) for i, n in enumerate([64, 192, 384])})
  np.savez(tmp_path / 'y.npz', **{'block1_conv1/kernel': np.ones((3, 3, 3, 64), int)})
  for file in ('x.npz', 'y.npz'):
    with pytest.raises(WeightsError, match='no floating point numbers'):
      convert(tmp_path / file)


FOREIGN = {
  'a web page': (b'\n<!DOCTYPE html><html>', 'web page'),
  'a Git LFS pointer': (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
  'an old tar': (b'sys_info'.ljust(257, b'\0') + b'ustar', 'tar format'),
  'an empty file': (b'', 'no known format'),
  'a plain array': (None, 'plain array'),
  'a broken h5': (b'\x89HDF\r\n\x1a\n' + bytes(40), 'cannot read|damaged'),
  'a broken safetensors': (b'\x10\0\0\0\0\0\0\0{"a": 1}', 'damaged'),
  'a huge safetensors header': (b'\xff\xff\xff\xff\xff\xff\xff\x7f{"a": 1}', 'damaged'),
  'a broken zip': (b'PK\x03\x04' + bytes(60), 'damaged'),
}


@pytest.mark.parametrize('case', FOREIGN)
def test_other_files_are_described(case, tmp_path):
  content, message = FOREIGN[case]
  path = tmp_path / 'x.npy'
  np.save(path, np.ones((2, 2))) if content is None else path.write_bytes(content)
  with pytest.raises(WeightsError, match=message) as error:
    convert(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_h5_names_that_are_not_text(tmp_path):
  import h5py

  with h5py.File(tmp_path / 'x.h5', 'w') as file:
    file[b'\xff\xfe'] = np.ones(3)
  with pytest.raises(WeightsError, match='damaged'):
    convert(tmp_path / 'x.h5')


def test_h5_that_points_to_another_file_is_refused(tmp_path):
  import h5py

  with h5py.File(tmp_path / 'x.h5', 'w') as file:
    file.create_dataset('a', (4,), 'f4', external=[(str(tmp_path / 'secret'), 0, 16)])
  with pytest.raises(WeightsError, match='refers to another file'):
    convert(tmp_path / 'x.h5')


@pytest.mark.parametrize('kind', ['npz', 'npy', 'h5', 'safetensors'])
def test_truncated_files(kind, tmp_path):
  ours = files.arrays('vgg16', 1)
  path = tmp_path / f'x.{kind}'
  if kind == 'npz':
    np.savez(path, **{'block1_conv1/kernel': ours['conv1_1/kernel']})
  elif kind == 'npy':
    write_npy(path, ours)
  elif kind == 'h5':
    files.keras_h5(path, ours, old=True)
  else:
    safetensors.numpy.save_file(ours, path)
  whole = path.read_bytes()
  for length in (*range(0, 300, 60), len(whole) // 2, len(whole) - 2):
    path.write_bytes(whole[:length])
    with pytest.raises(WeightsError) as error:
      convert(path, out=tmp_path / 'o')
    assert '\n' not in str(error.value)
  assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_npz_headers_that_promise_too_much(tmp_path):
  path = tmp_path / 'x.npz'
  content = io.BytesIO()
  np.save(content, np.ones(64, np.float32))
  with zipfile.ZipFile(path, 'w') as archive:
    huge = content.getvalue().replace(b'(64,), }        ', b'(9999999999,), }')
    archive.writestr('lin0.npy', huge)
  with pytest.raises(WeightsError, match='lin0.npy. is not as long'):
    convert(path)
  np.savez(path, lin0=np.array([{}], dtype=object))
  with pytest.raises(WeightsError, match='lin0.npy. is not as long'):
    convert(path)


def test_an_altered_file_of_a_published_name_is_refused(tmp_path):
  for name in ('vgg16-397923af.pth', 'alexnet-owt-4df8aa71.pth'):
    source = files.torch_save(tmp_path / name, vgg())
    with pytest.raises(WeightsError, match='damaged or altered.*published'):
      convert(source, out=tmp_path / 'o')
  (tmp_path / 'v0.1').mkdir()
  with pytest.raises(WeightsError, match='damaged or altered'):
    convert(files.torch_save(tmp_path / 'v0.1' / 'alex.pth', vgg()), out=tmp_path / 'o')
  # A file may be called alex.pth without being LPIPS's.
  assert convert(files.torch_save(tmp_path / 'alex.pth', vgg()), out=tmp_path / 'o')


@pytest.mark.parametrize(
  'lineage, mean, bgr', [('caffe-vgg', VGG_MEAN, True), ('caffe-ssd', SSD_MEAN, False)]
)
def test_a_known_digest_determines_the_pixel_format(lineage, mean, bgr, tmp_path, monkeypatch):
  """Some projects publish the authors' weights with torchvision's names."""
  source = files.torch_save(tmp_path / 'renamed.pth', vgg())
  published = known.Published('vgg16', 'x.pth', known.digest(source)[:8], lineage=lineage)
  monkeypatch.setattr(known, 'PUBLISHED', (published,))
  found, metadata = load(convert(source, out=tmp_path / 'o'))
  assert_same(found, expect(files.arrays('vgg16', 2), mean, (1, 1, 1), bgr))
  assert metadata['lineage'] == lineage


def test_published_files():
  for published in known.PUBLISHED:
    assert len(published.sha256) in (8, 64) and int(published.sha256, 16)
    assert all(url.startswith('https://') for url in published.urls)
    assert all(url.endswith(published.file) for url in published.urls)
    assert published.lineage in ('', *layouts.PIXELS)
    in_its_name = re.search(r'-([0-9a-f]{8})\.pth', published.file)
    assert not in_its_name or published.sha256.startswith(in_its_name[1])
  assert known.by_name('vgg16').file.endswith('notop.h5')
  assert all(len(known.by_name(name).sha256) == 64 for name in layouts.nets.NAMES)
  assert len({known.by_name(name).sha256 for name in nets.NAMES}) == len(nets.NAMES)


def test_cannot_write(tmp_path):
  source = files.torch_save(tmp_path / 'x.pth', vgg())
  (tmp_path / 'taken').write_text('a file')
  for out in (tmp_path / 'taken' / 'o.safetensors', tmp_path):
    with pytest.raises(WeightsError, match='cannot write'):
      convert(source, out=out)
  assert sorted(os.listdir(tmp_path)) == ['taken', 'x.pth']


def test_a_write_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
  source, out = files.torch_save(tmp_path / 'x.pth', vgg()), tmp_path / 'o.safetensors'
  convert(source, out=out)
  before = out.read_bytes()

  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(WeightsError, match='No space left'):
    convert(files.torch_save(tmp_path / 'y.pth', vgg(3)), out=out)
  assert out.read_bytes() == before
  assert sorted(os.listdir(tmp_path)) == ['o.safetensors', 'x.pth', 'y.pth']


def test_versions_and_altered_files_of_our_own(tmp_path):
  own = convert(files.torch_save(tmp_path / 'x.pth', vgg()), out=tmp_path / 'o.safetensors')
  tensors, metadata = load(own)
  for change, message in [
    ({'format': 'step_jax.weights/9'}, 'format .step_jax.weights/9'),
    ({'name': 'vgg99'}, 'vgg99'),
    ({'name': 'alexnet'}, 'is no alexnet'),
  ]:
    safetensors.numpy.save_file(tensors, own, metadata | change)
    with pytest.raises(WeightsError, match=message):
      convert(own, out=tmp_path / 'p')
  del tensors['input/mean']
  safetensors.numpy.save_file(tensors, own, metadata)
  with pytest.raises(WeightsError, match='lacks input/mean'):
    convert(own, out=tmp_path / 'p')
