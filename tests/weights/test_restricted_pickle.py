"""Hostile pickles are refused with a message, and never run."""

import collections
import io
import os
import struct

import pytest
import weight_files as files
from weight_files import call, name, program, text, tuple_of

from step_jax.errors import WeightsError
from step_jax.weights import load_features, restricted_pickle

TOUCH = 'touch {}'


def short(value: str) -> bytes:
  return b'\x8c' + bytes([len(value)]) + value.encode()


# What an attacker could write, given the path of a file that must not be created.
REFUSED = {
  'os.system': lambda path: call(name('os', 'system'), text(f'touch {path}')),
  'posix.system': lambda path: call(name('posix', 'system'), text(f'touch {path}')),
  'builtins.eval': lambda path: call(name('builtins', 'eval'), text(f'open({path!r}, "w")')),
  'builtins.getattr': lambda path: call(
    name('builtins', 'getattr'), name('torch', 'Size'), text('__class__')
  ),
  'subprocess.Popen': lambda path: (
    b'(' + text(f'touch {path}') + b'isubprocess\nPopen\n'  # INST looks up and calls.
  ),
  'builtins.exec': lambda path: (
    b'(' + name('builtins', 'exec') + text(f'open({path!r}, "w")') + b'o'
  ),
  'importlib.import_module': lambda path: (
    short('importlib') + short('import_module') + b'\x93' + tuple_of(text('os')) + b'R'
  ),
  'collections.OrderedDict.__init__.__globals__': lambda path: (
    short('collections') + short('OrderedDict.__init__.__globals__') + b'\x93'
  ),
  'numpy.load': lambda path: call(name('numpy', 'load'), text('x')),
  'torch.load': lambda path: call(name('torch', 'load'), text('x')),
  'torch.nn.modules.conv.Conv2d': lambda path: call(name('torch.nn.modules.conv', 'Conv2d')),
}


def in_every_format(folder, pickled):
  yield files.torch_zip(folder / 'a.pth', pickled, [])
  yield files.torch_legacy(folder / 'b.pth', pickled, [])
  yield files.npy_of(folder / 'c.npy', pickled)


@pytest.mark.parametrize('wanted', REFUSED)
def test_names_outside_of_the_table_are_refused_and_nothing_runs(wanted, tmp_path):
  marker = tmp_path / 'ran'
  stream = b'\x80\x04' + REFUSED[wanted](str(marker)) + b'.'
  for path in in_every_format(tmp_path, stream):
    with pytest.raises(WeightsError) as error:
      load_features('vgg16', ['conv1_1'], str(path))
    assert wanted in str(error.value) and str(path) in str(error.value)
    assert '\n' not in str(error.value)
    assert not marker.exists()


def test_a_real_pickle_payload_is_refused(tmp_path):
  import pickle

  class Payload:
    def __reduce__(self):
      return os.system, (f'touch {tmp_path / "ran"}',)

  for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    stream = pickle.dumps({'features.0.weight': Payload()}, protocol)
    for path in in_every_format(tmp_path, stream):
      with pytest.raises(WeightsError, match=r'system|damaged'):
        load_features('vgg16', ['conv1_1'], str(path))
  assert not (tmp_path / 'ran').exists()


BUILD = b'}(' + text('_make') + name('torch', 'FloatStorage') + b'u'

BROKEN = {
  'BUILD on a name from the table': name('collections', 'OrderedDict') + BUILD + b'b',
  'BUILD of slots of a name': (name('collections', 'OrderedDict') + b'N' + BUILD + b'\x86b'),
  'NEWOBJ of a name': name('collections', 'OrderedDict') + b')\x81',
  'a call of a text': text('print') + tuple_of(text('hi')) + b'R',
  'a call of a storage type': call(name('torch', 'FloatStorage'), text('x')),
  'an extension code': b'\x82\x01',
  'a huge memo': b'}r' + struct.pack('<I', 2**31 - 1),
  'a huge text': b'X' + struct.pack('<I', 2**32 - 1) + b'a',
  'huge bytes': b'\x8e' + struct.pack('<Q', 2**60) + b'a',
  'a huge frame': b'\x95' + struct.pack('<Q', 2**60) + b'N',
  'a storage of no type': tuple_of(text('storage'), text('x'), text('0')) + b'Q',
  'a storage of negative size': files.storage('0', -1),
  'a storage with a view outside': files.storage(
    '0', 4, 'FloatStorage', tuple_of(text('v'), files.number(3), files.number(2))
  ),
  'a stack underflow': b'R',
  'an unknown instruction': b'\xff',
  'nothing': b'',
}


@pytest.mark.parametrize('attack', BROKEN)
def test_invalid_instructions_fail_in_one_line(attack, tmp_path):
  stream = b'\x80\x04' + BROKEN[attack] + (b'' if attack == 'nothing' else b'.')
  for path in in_every_format(tmp_path, stream):
    with pytest.raises(WeightsError) as error:
      load_features('vgg16', ['conv1_1'], str(path))
    assert '\n' not in str(error.value)
  assert collections.OrderedDict() == {} and restricted_pickle.ORDERED_DICT
  made = restricted_pickle.ORDERED_DICT['collections', 'OrderedDict']()
  assert made == {} and not hasattr(made, '__dict__')


def test_several_pickles_in_a_row_are_read_one_by_one():
  file = io.BytesIO(program(files.number(7)) + program(text('b')) + b'rest')
  assert restricted_pickle.load(file, {}, 'x') == 7
  assert restricted_pickle.load(file, {}, 'x') == 'b'
  assert file.read() == b'rest'
