"""Writes checkpoints of other projects, instruction by instruction, with given arrays.

It needs neither PyTorch nor the classes named in the files.
"""

import pathlib
import struct
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[2] / 'weights'))

import weight_files as files


class Namespace(dict):
  """Attributes that are written as an `argparse.Namespace`."""


def write(path: pathlib.Path, tree: dict, legacy: bool = False) -> pathlib.Path:
  """Writes nested dicts of arrays and plain values in PyTorch's format."""
  storages = []
  pickled = files.program(_body(tree, storages, legacy))
  return (files.torch_legacy if legacy else files.torch_zip)(path, pickled, storages)


def _body(value, storages, legacy) -> bytes:
  if isinstance(value, Namespace):
    state = _items(value, storages, legacy)
    return files.name('argparse', 'Namespace') + b')\x81' + b'}(' + state + b'ub'
  if isinstance(value, dict):
    return b'}(' + _items(value, storages, legacy) + b'u'
  if isinstance(value, np.ndarray):
    kind = {'f': 'FloatStorage', 'i': 'LongStorage'}[value.dtype.kind]
    data = np.ascontiguousarray(value, '<f4' if value.dtype.kind == 'f' else '<i8')
    storages.append(data.tobytes())
    view = (b'N',) if legacy else ()
    where = files.storage(str(len(storages) - 1), value.size, kind, *view)
    return files.tensor(where, value.shape)
  return _plain(value)


def _plain(value) -> bytes:
  if value is None or isinstance(value, bool):
    return {None: b'N', True: b'\x88', False: b'\x89'}[value]
  if isinstance(value, str):
    return files.text(value)
  if isinstance(value, int):
    return files.number(value)
  if isinstance(value, float):
    return b'G' + struct.pack('>d', value)
  return b'](' + b''.join(map(_plain, value)) + b'e'


def _items(value, storages, legacy) -> bytes:
  return b''.join(files.text(k) + _body(v, storages, legacy) for k, v in value.items())


def easy_dict(items: dict[str, bytes]) -> bytes:
  content = b''.join(files.text(key) + value for key, value in items.items())
  return files.name('dnnlib.util', 'EasyDict') + b')\x81(' + content + b'u'


def storage_file(array: np.ndarray) -> bytes:
  """A storage as a separate file."""
  magic = b'\x8a\x0a' + files.MAGIC.to_bytes(10, 'little')
  parts = [magic, files.number(1001), files.dict_of({'little_endian': b'\x88'})]
  parts += [files.storage('94', array.size, 'FloatStorage', b'N'), b'](' + files.text('94') + b'e']
  data = np.ascontiguousarray(array, '<f4').tobytes()
  return b''.join(map(files.program, parts)) + struct.pack('<q', array.size) + data


def ada_tensor(array: np.ndarray) -> bytes:
  inner = storage_file(array)
  data = b'B' + struct.pack('<I', len(inner)) + inner
  where = files.call(files.name('torch.storage', '_load_from_bytes'), data)
  return files.tensor(where, array.shape)


def ada_module(arrays: dict[str, np.ndarray], buffers=('w_avg', 'noise_const')) -> bytes:
  """A module of persistent classes with submodules, from arrays by full names."""
  own, inner = {}, {}
  for name, array in arrays.items():
    first, dot, rest = name.partition('.')
    if dot:
      inner.setdefault(first, {})[rest] = array
    else:
      own[name] = array
  pick = lambda held: {name: ada_tensor(x) for name, x in own.items() if (name in buffers) == held}
  state = {
    'training': b'\x89',
    '_parameters': _ordered(pick(False)),
    '_buffers': _ordered(pick(True)),
    '_non_persistent_buffers_set': files.call(files.name('__builtin__', 'set'), b'](e'),
    '_modules': _ordered({name: ada_module(held, buffers) for name, held in inner.items()}),
  }
  meta = {
    'type': files.text('class'),
    'version': files.number(6),
    'module_src': files.text('raise SystemExit("this is run")'),
    'class_name': files.text('Network'),
    'state': easy_dict(state),
  }
  function = files.name('torch_utils.persistence', '_reconstruct_persistent_obj')
  return files.call(function, easy_dict(meta))


def _ordered(items: dict[str, bytes]) -> bytes:
  content = b''.join(files.text(key) + value for key, value in items.items())
  return files.ORDERED_DICT + b'(' + content + b'u'


def write_ada(path: pathlib.Path, networks: dict[str, dict[str, np.ndarray]]) -> pathlib.Path:
  """Writes the networks of a StyleGAN2-ADA pickle."""
  items = {name: ada_module(arrays) for name, arrays in networks.items()}
  items['training_set_kwargs'] = easy_dict({'path': files.text('/data')})
  items['augment_pipe'] = b'N'
  path.write_bytes(files.program(files.dict_of(items)))
  return path


def small_encoder(num_styles=8, widths=(16, 32, 48, 64)) -> dict[str, np.ndarray]:
  """A state dict of a narrow encoder for 64 px with PyTorch's names."""
  random = np.random.RandomState(0)
  state = {}

  def norm(key, width):
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
      state[f'{key}.{leaf}'] = 0.5 + random.rand(width).astype(np.float32)
    state[f'{key}.num_batches_tracked'] = np.array(7)

  def draw(key, *shape):
    state[key] = 0.1 * random.standard_normal(shape).astype(np.float32)

  draw('input_layer.0.weight', 16, 3, 3, 3)
  norm('input_layer.1', 16)
  draw('input_layer.2.weight', 16)
  inputs = 16
  for u, width in enumerate(widths):
    block = f'body.{u}.res_layer'
    norm(f'{block}.0', inputs)
    draw(f'{block}.1.weight', width, inputs, 3, 3)
    draw(f'{block}.2.weight', width)
    draw(f'{block}.3.weight', width, width, 3, 3)
    norm(f'{block}.4', width)
    draw(f'{block}.5.fc1.weight', width // 16, width, 1, 1)
    draw(f'{block}.5.fc2.weight', width, width // 16, 1, 1)
    if width != inputs:
      draw(f'body.{u}.shortcut_layer.0.weight', width, inputs, 1, 1)
      norm(f'body.{u}.shortcut_layer.1', width)
    inputs = width
  for i in (1, 2):
    draw(f'latlayer{i}.weight', widths[3], widths[3 - i], 1, 1)
    draw(f'latlayer{i}.bias', widths[3])
  for i in range(num_styles):
    for j in range(2 + (i >= 3) + (i >= 7)):
      draw(f'styles.{i}.convs.{2 * j}.weight', 24, 24 if j else widths[3], 3, 3)
      draw(f'styles.{i}.convs.{2 * j}.bias', 24)
    draw(f'styles.{i}.linear.weight', 24, 24)
    draw(f'styles.{i}.linear.bias', 24)
  return state


def small_face_embedding() -> dict[str, np.ndarray]:
  """A state dict of a narrow IR-SE network."""
  state = {k: v for k, v in small_encoder().items() if not k.startswith(('styles', 'latlayer'))}
  random = np.random.RandomState(1)
  norm = ('weight', 'bias', 'running_mean', 'running_var')
  for i in (0, 4):
    state |= {f'output_layer.{i}.{leaf}': random.rand(64).astype(np.float32) for leaf in norm}
  state['output_layer.3.weight'] = random.rand(64, 64 * 49).astype(np.float32)
  state['output_layer.3.bias'] = random.rand(64).astype(np.float32)
  return state


def small_generator(channels=8, style_dim=24) -> dict[str, np.ndarray]:
  """A state dict of a narrow generator of 32 px with rosinality's names."""
  random = np.random.RandomState(2)
  state = {'input.input': (1, channels, 4, 4)}
  for i in (1, 2):
    state |= {f'style.{i}.weight': (style_dim, style_dim), f'style.{i}.bias': (style_dim,)}

  def add(key, features, size):
    state[f'{key}.conv.weight'] = (1, features, channels, size, size)
    state[f'{key}.conv.modulation.weight'] = (channels, style_dim)
    state[f'{key}.conv.modulation.bias'] = (channels,)

  for i, key in enumerate(['conv1', *(f'convs.{i}' for i in range(6))]):
    add(key, channels, 3)
    state |= {f'{key}.noise.weight': (1,), f'{key}.activate.bias': (channels,)}
    side = 2 ** ((i + 5) // 2)
    state[f'noises.noise_{i}'] = (1, 1, side, side)
  for key in ['to_rgb1', *(f'to_rgbs.{i}' for i in range(3))]:
    add(key, 3, 1)
    state[f'{key}.bias'] = (1, 3, 1, 1)
  return {key: random.standard_normal(s).astype(np.float32) for key, s in state.items()}


def psp_tree(state, encoder):
  """Content of a file of pSp, without the mean style."""
  parts = {'encoder.': encoder, 'decoder.': state}
  return {
    'state_dict': {prefix + k: v for prefix, part in parts.items() for k, v in part.items()},
    'opts': {'dataset_type': 'ffhq_encode', 'output_size': 32, 'lpips_lambda': 0.8, 'none': None},
  }
