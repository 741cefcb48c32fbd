"""Hostile checkpoints of the original for `weights import-step`."""

import struct

from measure import MIB, peak, refused
import numpy as np
import pytest
import tf_bundle
from tf_bundle import _bytes, _number, _varint

from step_jax.errors import RunError, WeightsError
from step_jax.methods.step.original import tf_checkpoint
from step_jax.methods.step.original.import_step import import_step

SCOPE = 'appearance_net'


def index(path, entries, blocks=1):
  """A hand-written index, with entries as bytes and `blocks` handles in its index block."""
  block = b''.join(entries) + struct.pack('<II', 0, 1) + b'\0' * 5
  handle = _varint(0) + _varint(len(block) - 5)
  handles = entry(b'z', handle) * blocks + struct.pack('<II', 0, 1) + b'\0' * 5
  places = _varint(0) + _varint(8) + _varint(len(block)) + _varint(len(handles) - 5)
  footer = places.ljust(40, b'\0') + struct.pack('<Q', 0xDB4775248B80FB57)
  path.write_bytes(block + handles + footer)
  return path


def entry(name, value, shared=0):
  return _varint(shared) + _varint(len(name)) + _varint(len(value)) + name + value


HEADER = entry(b'', _number(1, 1))


def variable(shape, size, offset=0):
  dims = b''.join(_bytes(2, _number(1, side)) for side in shape)
  return _number(1, 1) + _bytes(2, dims) + _number(4, offset) + _number(5, size)


def read(path):
  return refused(lambda: tf_checkpoint.read(path), WeightsError)


def test_variables_that_share_their_bytes_are_refused(apart):
  """Otherwise, a file of 4 MiB could fill memory with thousands of variables."""
  (apart / 'x.data-00000-of-00001').write_bytes(bytes(4 * MIB))
  many = [HEADER, *(entry(b'v%03d' % i, variable((MIB,), 4 * MIB)) for i in range(500))]
  assert 'is damaged' in read(index(apart / 'x.index', many))
  assert tf_checkpoint.read(index(apart / 'x.index', many[:2]))['v000'].read().shape == (MIB,)


def test_names_that_grow_without_limit_are_refused(apart):
  long = b'n' * MIB
  many = [HEADER, entry(long, b'')] + [entry(b'x', b'', shared=MIB)] * 10_000
  path = index(apart / 'x.index', many)
  assert peak(lambda: read(path)) < 300 * MIB


@pytest.mark.parametrize(
  'make',
  [
    lambda: [HEADER, entry(b'v', variable((2**70, 0), 0))],
    lambda: [HEADER, entry(b'v', variable((2**62,), 2**64))],
    lambda: [entry(b'', b'\x80' * 1000), entry(b'v', b'')],
    lambda: [HEADER, entry(b'\xff', variable((1,), 4))],
    lambda: [entry(b'v', variable((1,), 4))],
    lambda: [],
  ],
  ids=['sides', 'size', 'number without end', 'name', 'no header', 'nothing'],
)
def test_wrong_indices_are_refused(make, apart):
  (apart / 'x.data-00000-of-00001').write_bytes(bytes(64))
  read(index(apart / 'x.index', make()))


def test_blocks_are_read_once(apart):
  assert 'is damaged' in read(index(apart / 'x.index', [HEADER], blocks=1000))


def encoder(**changed):
  """Variables with the names of the encoder; `__` stands for `/`."""
  found = {
    'conv0/weight': np.zeros((7, 7, 3, 64), np.float32),
    'FC_mean/dense/weight': np.zeros((256, 8), np.float32),
  }
  found |= {name.replace('__', '/'): value for name, value in changed.items()}
  return {f'{SCOPE}/{name}': value for name, value in found.items()}


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'conv0__weight': np.float32(1)}, 'style_encoder/conv0/kernel'),
    ({'FC_mean__dense__weight': np.zeros((256, 0), np.float32)}, 'style_encoder/mean/kernel'),
    # A width that takes no bytes in the file.
    ({'conv0__weight': np.zeros((7, 7, 0, 60_000), np.float32)}, 'is nothing'),
    ({'conv0__weight': np.zeros((0, 0, 0, 2**30), np.float32)}, 'style_encoder/conv0/kernel'),
    ({'conv0__weight': np.full((7, 7, 3, 64), np.nan, np.float32)}, 'not finite'),
  ],
)
def test_networks_with_wrong_shapes_are_refused_before_allocation(changed, message, apart):
  tf_bundle.write(apart / 'x', encoder(**changed))
  found = []
  stop = lambda: refused(lambda: import_step(apart / 'x', apart / 'run'), WeightsError)
  assert peak(lambda: found.append(stop())) < 300 * MIB
  assert message in found[0]
  assert not (apart / 'run').exists()


@pytest.mark.parametrize('step', [np.int64(-1), np.int64(2**40), np.zeros(3, np.int64)])
def test_invalid_steps_are_refused(step, apart):
  tf_bundle.write(apart / 'x', {**encoder(), 'global_step': step})
  assert 'not a number of steps' in refused(lambda: import_step(apart / 'x', apart / 'run'))


def test_invalid_codes_are_refused(apart):
  tf_bundle.write(apart / 'x', {'dense/kernel': np.zeros((8, 8), np.float32)})
  path = apart / 'zs_train.npy'
  for codes in (
    np.zeros((3, 8), object),
    np.zeros(8, np.float32),
    np.full((3, 8), np.nan, np.float32),
    np.zeros((3, 9), np.float32),
    np.zeros((3, 8), np.int32),
  ):
    np.save(path, codes, allow_pickle=True)
    refused(lambda: import_step(apart / 'x', apart / 'run', codes=path), (RunError, WeightsError))
  path.write_bytes(b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (9999999")
  refused(lambda: import_step(apart / 'x', apart / 'run', codes=path))
  assert not (apart / 'run').exists()
