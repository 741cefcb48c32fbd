"""Writes TensorFlow checkpoints in the format of `tf.train.Saver`, for tests."""

import struct

import numpy as np

_TYPES = {'float32': 1, 'int64': 9}


def _varint(value):
  out = b''
  while value > 127:
    out, value = out + bytes([value & 127 | 128]), value >> 7
  return out + bytes([value])


def _number(field, value):
  return _varint(field << 3) + _varint(value)


def _bytes(field, value):
  return _varint(field << 3 | 2) + _varint(len(value)) + value


def _block(entries):
  """Entries of sorted keys, stored without the prefix shared with the previous key."""
  out, before = b'', b''
  for key, value in entries:
    shared = 0
    while shared < min(len(key), len(before)) and key[shared] == before[shared]:
      shared += 1
    out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
    out += key[shared:] + value
    before = key
  # One restart point, the first entry; then no compression, and a checksum.
  return out + struct.pack('<II', 0, 1), b'\0' + bytes(4)


def write(prefix, variables, per_block=16):
  """Writes `prefix.index` and one data file."""
  data, size, entries = [], 0, [(b'', _number(1, 1) + _bytes(3, _number(1, 1)))]
  for name in sorted(variables):
    array = np.asarray(variables[name])
    shape = b''.join(_bytes(2, _number(1, size)) for size in array.shape)
    entry = _number(1, _TYPES[str(array.dtype)]) + _bytes(2, shape)
    entry += _number(4, size) + _number(5, array.nbytes) + _varint(6 << 3 | 5) + bytes(4)
    entries.append((name.encode(), entry))
    data.append(array.tobytes())
    size += array.nbytes
  prefix.with_name(f'{prefix.name}.data-00000-of-00001').write_bytes(b''.join(data))
  file, handles = b'', []
  for start in range(0, len(entries), per_block):
    part = entries[start : start + per_block]
    block, trailer = _block(part)
    handles.append((part[-1][0], _varint(len(file)) + _varint(len(block))))
    file += block + trailer
  places = b''
  for table in ([], handles):
    block, trailer = _block(table)
    places += _varint(len(file)) + _varint(len(block))
    file += block + trailer
  file += places.ljust(40, b'\0') + struct.pack('<Q', 0xDB4775248B80FB57)
  prefix.with_name(f'{prefix.name}.index').write_bytes(file)
