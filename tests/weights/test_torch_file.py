"""Both formats of PyTorch, including damaged and inconsistent files."""

import zipfile

import numpy as np
import pytest
import weight_files as files

from step_jax.errors import WeightsError
from step_jax.weights import readers

STATE = {
  'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
  'a.bias': np.array([1.5, -2.5], np.float32),
  'count': np.array(3.0, np.float32),
}


def read(path):
  tensors, metadata = readers.read(path)
  assert metadata == {}
  return {name: tensor.read() for name, tensor in tensors.items()}


def assert_same(found, expected):
  assert list(found) == list(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == array.dtype


@pytest.mark.parametrize('kind', files.KINDS)
def test_reads_a_state_dict(kind, tmp_path):
  assert_same(read(files.torch_save(tmp_path / 'x.pth', STATE, kind)), STATE)


def one(where: bytes, shape, **options) -> bytes:
  return files.program(files.dict_of({'x': files.tensor(where, shape, **options)}))


@pytest.mark.parametrize('write', [files.torch_zip, files.torch_legacy])
def test_reads_parts_of_storages_with_any_strides(write, tmp_path):
  data = np.arange(12, dtype=np.float32)
  stream = one(files.storage('0', 12), (2, 3), strides=(1, 2), offset=4)
  found = read(write(tmp_path / 'x.pth', stream, [data.tobytes()]))['x']
  np.testing.assert_array_equal(found, [[4, 6, 8], [5, 7, 9]])
  view = files.tuple_of(files.text('v'), files.number(2), files.number(6))
  stream = one(files.storage('0', 12, 'FloatStorage', view), (5,), offset=1)
  found = read(write(tmp_path / 'x.pth', stream, [data.tobytes()]))['x']
  np.testing.assert_array_equal(found, [3, 4, 5, 6, 7])


@pytest.mark.parametrize('kind, dtype', [('HalfStorage', '<f2'), ('DoubleStorage', '<f8')])
def test_reads_other_floats(kind, dtype, tmp_path):
  data = np.array([0.5, -3, 7, 1], dtype)
  path = files.torch_zip(
    tmp_path / 'x.pth', one(files.storage('0', 4, kind), (4,)), [data.tobytes()]
  )
  assert_same(read(path), {'x': data})


@pytest.mark.parametrize('kind', files.KINDS)
def test_a_truncated_file_is_an_error(kind, tmp_path):
  path = files.torch_save(tmp_path / 'x.pth', STATE, kind)
  whole = path.read_bytes()
  for length in [*range(0, len(whole), 37), len(whole) - 1]:
    path.write_bytes(whole[:length])
    with pytest.raises(WeightsError) as error:
      read(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_the_older_format_ends_with_its_last_storage(tmp_path):
  path = files.torch_save(tmp_path / 'x.pth', STATE, 'legacy')
  path.write_bytes(path.read_bytes() + b'more')
  with pytest.raises(WeightsError, match='more bytes'):
    read(path)


def test_a_flipped_bit_in_a_zip_is_an_error(tmp_path):
  path = files.torch_save(tmp_path / 'x.pth', STATE)
  data = bytearray(path.read_bytes())
  data[data.index(files.raw(STATE)[0]) + 50] ^= 1
  path.write_bytes(data)
  tensors, _ = readers.read(path)
  with pytest.raises(zipfile.BadZipFile):
    tensors['a.weight'].read()


LIES = {
  'larger than the file': one(files.storage('0', 2**40), (4,)),
  'smaller than the storage': one(files.storage('0', 3), (3,)),
  'past the end': one(files.storage('0', 4), (4,), offset=1),
  'far past the end': one(files.storage('0', 4), (2,), strides=(2**40,)),
  'before the start': one(files.storage('0', 4), (2,), strides=(-1,)),
  'negative offset': one(files.storage('0', 4), (2,), offset=-1),
  'repeated without end': one(files.storage('0', 4), (2**20, 2**20), strides=(0, 0)),
  'ranks that differ': one(files.storage('0', 4), (2, 2), strides=(1,)),
  'an unknown storage': one(files.storage('9', 4), (4,)),
  'no storage': one(files.text('0'), (4,)),
  'not a tensor': files.program(files.dict_of({'x': files.text('y')})),
  'not a dict': files.program(files.text('y')),
  'a nested state dict': files.program(files.dict_of({'state_dict': files.dict_of({})})),
}


@pytest.mark.parametrize('lie', LIES)
@pytest.mark.parametrize('write', [files.torch_zip, files.torch_legacy])
def test_descriptions_are_checked_against_the_storages(write, lie, tmp_path):
  path = write(tmp_path / 'x.pth', LIES[lie], [bytes(16)])
  with pytest.raises(WeightsError, match='not a usable PyTorch file'):
    readers.read(path)


def test_compressed_and_big_endian_files_are_refused(tmp_path):
  pickled, storages = files.state_dict(STATE), files.raw(STATE)
  packed = files.torch_zip(tmp_path / 'a', pickled, storages, compression=zipfile.ZIP_DEFLATED)
  other = files.torch_legacy(tmp_path / 'b', pickled, storages, little=b'\x89')
  for path in (packed, other):
    with pytest.raises(WeightsError, match='compressed|big-endian'):
      readers.read(path)
