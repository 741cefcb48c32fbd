"""Hostile weights files."""

import io
import json
import struct
import zipfile

import h5py
from measure import MIB, peak, refused
import numpy as np
import pytest
import weight_files as files
from weight_files import call, name, number, program, text

from step_jax import download, weights
from step_jax.errors import WeightsError
from step_jax.weights import layouts, nets, readers, restricted_pickle

HEADS = 'lpips_alex'
MARK = b'('


@pytest.fixture(scope='module', autouse=True)
def known_layouts():
  """Builds layouts first, whose memory is not part of that of a file."""
  list(layouts._layouts())


def head_arrays() -> dict[str, np.ndarray]:
  """Heads with the names of the npz layout."""
  shapes = nets.shapes(HEADS).values()
  return {f'lin{i}': np.full(shape, 0.5, np.float32) for i, shape in enumerate(shapes)}


def npy(descr: str, shape, data: bytes = b'', version: int = 1, spaces: int = 0) -> bytes:
  """A npy file with an arbitrary header."""
  header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
  header = header + ' ' * spaces + '\n'
  length = struct.pack('<H' if version == 1 else '<I', len(header))
  return b'\x93NUMPY' + bytes([version, 0]) + length + header.encode() + data


def npz(path, members: dict[str, bytes]):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    for member, content in members.items():
      archive.writestr(member, content)
  return path


def packed(array: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def convert_heads(path, folder):
  return lambda: weights.convert(path, HEADS, folder / 'out.safetensors')


# Pickles that crash the process or exhaust its memory without calling anything foreign.


def nested(depth: int) -> bytes:
  return b'})' + b'\x85' * depth + b'Ns'


def doubled(depth: int) -> bytes:
  """Nested tuples with each one used twice; as a key, hashing takes 2**depth steps."""
  return b'})' + b'2\x86' * depth + b'Ns'


@pytest.mark.parametrize('key', [nested(10**6), doubled(60)], ids=['deep', 'wide'])
def test_keys_that_cannot_be_hashed_are_refused_unhashed(key, apart):
  """Hashing the first one overflows the stack; hashing the second one never ends."""
  stream = b'\x80\x02' + key + b'.'
  for path in (
    files.torch_zip(apart / 'a.pth', stream, []),
    files.torch_legacy(apart / 'b.pth', stream, []),
    files.npy_of(apart / 'c.npy', stream),
  ):
    assert 'in its pickle' in refused(lambda path=path: readers.read(path), WeightsError)


def again_and_again(function: bytes, argument: bytes, times: int) -> bytes:
  """A list of results of a function that is called repeatedly with one argument."""
  once = b'h\x00h\x01\x85R'
  start = function + b'q\x000' + argument + b'q\x010'
  return program(start + b']' + MARK + once * times + b'e')


LIST = b']' + MARK + b'N' * 30_000 + b'e'
PAIRS = b']' + MARK + b''.join(number(i) + b'N\x86' for i in range(30_000)) + b'e'
DICT = b'}' + MARK + b''.join(map(number, range(60_000))) + b'u'
COPIES = {
  'torch.Size of a list': again_and_again(name('torch', 'Size'), LIST, 5000),
  'OrderedDict of a list': again_and_again(name('collections', 'OrderedDict'), PAIRS, 1000),
  'OrderedDict of a dict': again_and_again(
    name('collections', 'OrderedDict'), DICT, 500
  ),
  'bytes of a text': again_and_again(name('_codecs', 'encode'), text('x' * 300_000), 5000),
}  # fmt: skip


@pytest.mark.parametrize('copied', COPIES)
def test_endless_copies_need_no_memory(copied):
  """Some hundred kilobytes, which copies in each call would turn into a gigabyte."""
  from step_jax.weights import numpy_file, torch_file

  stream = COPIES[copied]
  names = numpy_file._NAMES if copied.startswith('bytes') else torch_file.TENSOR_NAMES

  def read():
    try:
      restricted_pickle.load(io.BytesIO(stream), names, 'x')
    except WeightsError:
      pass

  assert peak(read) < 64 * MIB


def test_an_object_array_in_a_npz_is_refused(apart):
  members = {f'{key}.npy': packed(array) for key, array in head_arrays().items()}
  pickled = program(call(name('os', 'system'), text(f'touch {apart}/ran')))
  path = npz(apart / 'x.npz', {**members, 'lin0.npy': npy("'|O'", '()', pickled)})
  refused(convert_heads(path, apart), WeightsError)
  assert [p.name for p in apart.iterdir()] == ['x.npz']


HEADERS = {
  'shape beyond all memory': npy("'<f4'", f'({2**62},)'),
  'shape whose product overflows': npy("'<f4'", f'({2**32}, {2**32}, {2**32})'),
  'negative shape': npy("'<f4'", '(-1, -64)', bytes(256)),
  'longer than the file': npy("'<f4'", '(65,)', bytes(256)),
  'shorter than the file': npy("'<f4'", '(63,)', bytes(256)),
  'code in place of a shape': npy("'<f4'", "__import__('os').abort()"),
  'code in place of a type': npy("__import__('os').abort()", '(64,)', bytes(256)),
  'a deep header': npy('(' * 5000 + ')' * 5000, '(64,)'),
  'minus a thousand times': npy('-' * 9000 + '1', '(64,)'),
  'a record': npy("[('a', '<f4')]", '(64,)', bytes(256)),
  'an unknown version': b'\x93NUMPY\x09\x09' + bytes(100),
}


@pytest.mark.parametrize('lie', HEADERS)
def test_wrong_headers_of_arrays_are_refused(lie, apart):
  members = {f'{key}.npy': packed(array) for key, array in head_arrays().items()}
  path = npz(apart / 'x.npz', {**members, 'lin0.npy': HEADERS[lie]})
  assert peak(lambda: refused(convert_heads(path, apart), WeightsError)) < 24 * MIB
  path = apart / 'x.npy'
  path.write_bytes(HEADERS[lie])
  refused(lambda: readers.read(path), WeightsError)


def test_an_inflating_header_is_not_read_completely(apart):
  members = {f'{key}.npy': packed(array) for key, array in head_arrays().items()}
  bomb = npy("'<f4'", '(64,)', version=2, spaces=64 * MIB)
  path = npz(apart / 'x.npz', {**members, 'lin0.npy': bomb})
  del bomb
  assert path.stat().st_size < MIB
  assert peak(lambda: refused(convert_heads(path, apart), WeightsError)) < 24 * MIB


def test_arrays_inside_of_numbers_are_not_inflated(apart):
  """The shape is correct, but each element is an array of 250,000 numbers."""
  arrays = head_arrays()
  members = {f'{key}.npy': packed(array) for key, array in arrays.items()}
  bomb = npy("('<f4', (262144,))", '(64,)', bytes(64 * MIB))
  path = npz(apart / 'x.npz', {**members, 'lin0.npy': bomb})
  del bomb
  assert peak(lambda: refused(convert_heads(path, apart), WeightsError)) < 24 * MIB
  path = apart / 'x.h5'
  with h5py.File(path, 'w') as file:
    for key, array in arrays.items():
      if key == 'lin0':
        kind = np.dtype(('<f4', (1 << 18,)))
        file.create_dataset(key, array.shape, kind, chunks=(1,), compression='gzip')
      else:
        file[key] = array
  assert peak(lambda: refused(convert_heads(path, apart), WeightsError)) < 24 * MIB


def test_two_members_of_one_name_are_refused(apart):
  """The second one has the right shape, but the first one would be read."""
  arrays = head_arrays()
  members = {'lin0': npy("'<f4'", f'({16 * MIB},)', bytes(64 * MIB))}
  members |= {f'{key}.npy': packed(array) for key, array in arrays.items()}
  path = npz(apart / 'x.npz', members)
  del members
  found = []
  assert peak(lambda: found.append(refused(convert_heads(path, apart), WeightsError))) < 32 * MIB
  assert 'twice' in found[0]


def test_inflating_members_that_are_not_requested_are_not_read(apart):
  members = {f'{key}.npy': packed(array) for key, array in head_arrays().items()}
  path = npz(
    apart / 'x.npz', {**members, 'bomb.npy': npy("'<f4'", f'({16 * MIB},)', bytes(64 * MIB))}
  )
  assert peak(lambda: refused(convert_heads(path, apart), WeightsError)) < 24 * MIB  # fmt: skip


def test_tensors_do_not_keep_a_shared_storage(apart):
  arrays = head_arrays()
  count = 8 * MIB  # 4 bytes each.
  items = {
    f'lin{i}.model.1.weight': files.tensor(
      files.storage('0', count), (1, *array.shape, 1, 1), offset=i
    )
    for i, array in enumerate(arrays.values())
  }
  path = files.torch_zip(apart / 'x.pth', program(files.dict_of(items)), [bytes(4 * count)])
  assert peak(convert_heads(path, apart)) < 3 * 4 * count


@pytest.mark.parametrize('evil', ['../../evil', '/evil', '..\\evil', 'C:\\evil', 'a\0b', 'a\nb'])
def test_names_of_members_cannot_leave_the_folder(evil, apart):
  """Archives are never extracted."""
  pickled, storages = files.state_dict(head_arrays()), files.raw(head_arrays())
  path = files.torch_zip(apart / 'x.pth', pickled, storages)
  with zipfile.ZipFile(path, 'a') as archive:
    archive.writestr(f'{evil}/data/9', b'evil')
  tensors, _ = readers.read(path)
  assert list(tensors) == list(head_arrays())
  members = {f'{key}.npy': packed(array) for key, array in head_arrays().items()}
  path = npz(apart / 'x.npz', {**members, f'{evil}.npy': packed(np.zeros(3))})
  refused(convert_heads(path, apart), WeightsError)
  assert sorted(p.name for p in apart.iterdir()) == ['x.npz', 'x.pth']


def safetensors(header: bytes, data: bytes = b'', length: int | None = None) -> bytes:
  return struct.pack('<Q', len(header) if length is None else length) + header + data


def entry(shape, offsets) -> bytes:
  return json.dumps({'lin0': {'dtype': 'F32', 'shape': shape, 'data_offsets': offsets}}).encode()


SAFETENSORS = {
  'a header beyond all memory': safetensors(b'{}', length=2**62),
  'a header of 4 GiB': safetensors(b'{}', length=2**32),
  'a deep header': safetensors(b'{"a":' * 100_000),
  'a shape that overflows': safetensors(entry([2**63, 2**63], [0, 0])),
  'offsets outside': safetensors(entry([64], [0, 256]), bytes(8)),
  'offsets that run back': safetensors(entry([64], [256, 0]), bytes(256)),
  'more data than tensors': safetensors(entry([64], [0, 256]), bytes(300)),
  'format of no text': safetensors(b'{"__metadata__":{"format":1}}'),
  'our format, no net': safetensors(b'{"__metadata__":{"format":"step_jax.weights/1","name":"/"}}'),
  'our format, next version': safetensors(b'{"__metadata__":{"format":"step_jax.weights/2\\n"}}'),
}  # fmt: skip


@pytest.mark.parametrize('lie', SAFETENSORS)
def test_wrong_headers_of_safetensors_are_refused(lie, apart):
  path = apart / 'x.safetensors'
  path.write_bytes(SAFETENSORS[lie])
  assert peak(lambda: refused(lambda: weights.convert(path), WeightsError)) < 24 * MIB


def test_links_in_h5_lead_to_no_other_file(apart):
  with h5py.File(apart / 'other.h5', 'w') as file:
    file['lin0'] = np.ones(64, np.float32)
  with h5py.File(apart / 'x.h5', 'w') as file:
    for key, array in head_arrays().items():
      if key != 'lin0':
        file[key] = array
    file['lin0'] = h5py.ExternalLink('other.h5', '/lin0')
    file['soft'] = h5py.SoftLink('/lin0')
  tensors, _ = readers.read(apart / 'x.h5')
  assert 'lin0' not in tensors and 'soft' not in tensors
  refused(convert_heads(apart / 'x.h5', apart), WeightsError)


def test_an_endless_download_is_stopped(apart):
  class Endless:
    headers = {}

    def read(self, size):
      return bytes(size)

  assert not download._save(Endless(), apart / 'x', 0, 5 * MIB)
  assert (apart / 'x').stat().st_size <= 5 * MIB
