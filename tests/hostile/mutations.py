"""Random damage of files, as drawn by hypothesis."""

from collections.abc import Sequence

from hypothesis import strategies as st

# Values that often break lengths and counts.
_EDGES = (
  b'\0',
  b'\xff',
  b'\x7f',
  b'\x80',
  b'\xff' * 4,
  b'\0' * 8,
  b'\xff' * 8,
  b'\x7f' + b'\xff' * 7,
)

_place = st.floats(0, 1, exclude_max=True)
_change = st.one_of(
  st.tuples(st.just('flip'), _place, st.integers(0, 7)),
  st.tuples(st.just('cut'), _place, st.none()),
  st.tuples(st.just('write'), _place, st.one_of(st.sampled_from(_EDGES), st.binary(max_size=8))),
  st.tuples(st.just('insert'), _place, st.binary(max_size=16)),
  st.tuples(st.just('remove'), _place, st.integers(1, 64)),
  st.tuples(st.just('copy'), _place, st.tuples(_place, st.integers(1, 64))),
)
# Headers are short: half of the changes are in the first bytes.
changes = st.lists(st.tuples(_change, st.booleans()), min_size=1, max_size=4)


def damaged(whole: bytes, changes: Sequence) -> bytes:
  """A file with some changes, applied in sequence."""
  data = bytearray(whole)
  for (kind, place, how), near in changes:
    at = int(place * (min(len(data), 256) if near else len(data)))
    if kind == 'flip' and data:
      data[at] ^= 1 << how
    elif kind == 'cut':
      del data[at:]
    elif kind == 'write':
      data[at : at + len(how)] = how
    elif kind == 'insert':
      data[at:at] = how
    elif kind == 'remove':
      del data[at : at + how]
    elif kind == 'copy':
      start = int(how[0] * len(data))
      data[at : at + how[1]] = data[start : start + how[1]]
  return bytes(data)
