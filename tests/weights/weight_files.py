"""Writes files in published layouts and formats, with small random values.

Pickle streams are written instruction by instruction. This needs no PyTorch, and hostile files are
written in the same way as valid ones.
"""

import os
import pathlib
import re
import struct
import zipfile

import numpy as np
import pytest

from step_jax.weights import nets

MAGIC = 0x1950A86A20F9469CFC6C
SHARED = pathlib.Path(
  os.environ.get('STEP_JAX_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)

# Listed explicitly, as an independent check of the rule in `layouts`.
TORCHVISION = {
  'vgg16': {
    **{'conv1_1': '0', 'conv1_2': '2', 'conv2_1': '5', 'conv2_2': '7'},
    **{'conv3_1': '10', 'conv3_2': '12', 'conv3_3': '14'},
    **{'conv4_1': '17', 'conv4_2': '19', 'conv4_3': '21'},
    **{'conv5_1': '24', 'conv5_2': '26', 'conv5_3': '28'},
  },
  'vgg19': {
    **{'conv1_1': '0', 'conv1_2': '2', 'conv2_1': '5', 'conv2_2': '7'},
    **{'conv3_1': '10', 'conv3_2': '12', 'conv3_3': '14', 'conv3_4': '16'},
    **{'conv4_1': '19', 'conv4_2': '21', 'conv4_3': '23', 'conv4_4': '25'},
    **{'conv5_1': '28', 'conv5_2': '30', 'conv5_3': '32', 'conv5_4': '34'},
  },
  'alexnet': {'conv1': '0', 'conv2': '3', 'conv3': '6', 'conv4': '8', 'conv5': '10'},
  'squeezenet1_1': {
    **{'conv1': '0', 'fire2': '3', 'fire3': '4', 'fire4': '6', 'fire5': '7'},
    **{'fire6': '9', 'fire7': '10', 'fire8': '11', 'fire9': '12'},
  },
}


def shared(name: str) -> pathlib.Path:
  path = SHARED / name
  if not path.exists():
    pytest.skip(f'{path} is not here (STEP_JAX_SHARED)')
  return path


def arrays(name: str, layers: int | None = None) -> dict[str, np.ndarray]:
  """Random parameters of the first layers of a network or of heads, without `input`."""
  random = np.random.default_rng(len(name))
  kept = [layer for layer in nets.layers(name) if layer != 'input'][:layers]
  return {
    path: random.standard_normal(shape, np.float32)
    for path, shape in nets.shapes(name).items()
    if nets.layer_of(path) in kept
  }


def torchvision(net: str, ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Our arrays with torchvision's names and axes, and a part of a classifier."""
  state = {'classifier.1.weight': np.ones((2, 3), np.float32)}
  for path, array in ours.items():
    layer, *inner = path.split('/')
    name = '.'.join(['features', TORCHVISION[net][layer], *inner])
    name = name.replace('kernel', 'weight').replace('expand1', 'expand1x1')
    name = name.replace('expand3', 'expand3x3')
    state[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
  return state


def inception(ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Our arrays with pytorch-fid's names and axes, and its additional arrays."""
  state = {'fc.weight': np.ones((2, 3), np.float32), 'fc.bias': np.ones(2, np.float32)}
  for path, array in ours.items():
    name = path.replace('/', '.').replace('kernel', 'weight').replace('scale', 'weight')
    name = re.sub(r'(mean|var)$', r'running_\1', name)
    state[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    if path.endswith('bn/bias'):
      state[name.replace('bias', 'num_batches_tracked')] = np.array(0.0)
  return state


def keras_h5(path: pathlib.Path, ours: dict[str, np.ndarray], old: bool) -> pathlib.Path:
  import h5py

  with h5py.File(path, 'w') as file:
    for name, array in ours.items():
      layer, leaf = re.sub(r'conv(\d)_(\d)', r'block\1_conv\2', name).split('/')
      last = f'{layer}_{"W" if leaf == "kernel" else "b"}_1:0' if old else f'{layer}/{leaf}:0'
      file[f'{layer}/{last}'] = array
    file.create_group('block1_pool')
  return path


# Opcodes of the stack machine.


def name(module: str, attribute: str) -> bytes:
  return f'c{module}\n{attribute}\n'.encode()


def text(value: str) -> bytes:
  return b'X' + struct.pack('<I', len(value.encode())) + value.encode()


def number(value: int) -> bytes:
  return b'\x8a\x0b' + value.to_bytes(11, 'little', signed=True)


def tuple_of(*items: bytes) -> bytes:
  return b'(' + b''.join(items) + b't'


def numbers(values) -> bytes:
  return tuple_of(*map(number, values))


def call(function: bytes, *args: bytes) -> bytes:
  return function + tuple_of(*args) + b'R'


def dict_of(items: dict[str, bytes]) -> bytes:
  return b'}(' + b''.join(text(key) + value for key, value in items.items()) + b'u'


def program(body: bytes) -> bytes:
  return b'\x80\x02' + body + b'.'


ORDERED_DICT = call(name('collections', 'OrderedDict'))


def storage(key: str, count: int, kind: str = 'FloatStorage', *view: bytes) -> bytes:
  parts = [text('storage'), name('torch', kind), text(key), text('cpu'), number(count), *view]
  return tuple_of(*parts) + b'Q'


def tensor(where: bytes, shape, strides=None, offset: int = 0, old: bool = False) -> bytes:
  """A tensor as PyTorch writes it now, or (`old`) as it did in 2017.

  The old form is a Parameter around the first rebuilder.
  """
  strides = strides or [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
  parts = [where, number(offset), numbers(shape), numbers(strides)]
  if old:
    data = call(name('torch._utils', '_rebuild_tensor'), *parts)
    return call(name('torch.nn.parameter', 'Parameter'), data, b'\x88')
  return call(name('torch._utils', '_rebuild_tensor_v2'), *parts, b'\x89', ORDERED_DICT)


def state_dict(state: dict[str, np.ndarray], legacy: bool = False, old: bool = False) -> bytes:
  """The pickle of a state dict with its module versions, storages named 0, 1, ..."""
  view = (b'N',) if legacy else ()
  items = [
    text(key) + tensor(storage(str(i), array.size, 'FloatStorage', *view), array.shape, old=old)
    for i, (key, array) in enumerate(state.items())
  ]
  versions = dict_of({'_metadata': ORDERED_DICT})
  return program(ORDERED_DICT + b'(' + b''.join(items) + b'u' + versions + b'b')


def raw(state: dict[str, np.ndarray]) -> list[bytes]:
  return [np.ascontiguousarray(array, '<f4').tobytes() for array in state.values()]


def torch_zip(path: pathlib.Path, pickled: bytes, storages: list[bytes], **options) -> pathlib.Path:
  with zipfile.ZipFile(path, 'w', **options) as archive:
    archive.writestr('archive/data.pkl', pickled)
    archive.writestr('archive/byteorder', 'little')
    for i, data in enumerate(storages):
      archive.writestr(f'archive/data/{i}', data)
    archive.writestr('archive/version', '3\n')
  return path


def torch_legacy(
  path: pathlib.Path, pickled: bytes, storages: list[bytes], little: bytes = b'\x88'
) -> pathlib.Path:
  magic = b'\x8a\x0a' + MAGIC.to_bytes(10, 'little')
  keys = b'](' + b''.join(text(str(i)) for i in range(len(storages))) + b'e'
  with path.open('wb') as file:
    for body in (magic, number(1001), dict_of({'little_endian': little})):
      file.write(program(body))
    file.write(pickled + program(keys))
    for data in storages:
      file.write(struct.pack('<q', len(data) // 4) + data)
  return path


def npy_of(path: pathlib.Path, pickled: bytes) -> pathlib.Path:
  """An npy file of one object, with any pickle in it."""
  header = "{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + '\n'
  start = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode()
  path.write_bytes(start + pickled)
  return path


KINDS = ('zip', 'legacy', '2017')


def torch_save(path: pathlib.Path, state: dict[str, np.ndarray], kind: str = 'zip') -> pathlib.Path:
  """Writes a state dict in PyTorch's current format, that until 1.5, or that of VGG16 in 2017."""
  pickled = state_dict(state, kind != 'zip', kind == '2017')
  return (torch_zip if kind == 'zip' else torch_legacy)(path, pickled, raw(state))
