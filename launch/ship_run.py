"""Makes an export small enough for the package: `python launch/ship_run.py EXPORT NAME`.

Writes `step_jax/methods/shipped/NAME`, with parameters in float16, without programs, and without
the table that only programs use. Of the codes that SuperStyleNet samples from, it keeps those of
64 images.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
from safetensors import numpy as safetensors_numpy

from step_jax.methods import names

_MOST_BYTES = 4_000_000
_BANK, _IN_BANK = 'run/bank', 64
_OF_PROGRAMS = 'codes/'


def ship(export: pathlib.Path, name: str) -> pathlib.Path:
  """Writes the folder of a shipped run; its name in `step_jax.load` is `shipped:NAME`."""
  arrays = safetensors_numpy.load_file(export / names.PARAMETERS)
  if _BANK in arrays:
    arrays[_BANK] = arrays[_BANK][:_IN_BANK]
  halves = {
    key: np.asarray(value, np.float16)
    for key, value in arrays.items()
    if not key.startswith(_OF_PROGRAMS)
  }
  for key, half in halves.items():
    if np.isinf(half).any():
      raise SystemExit(f'{export}: {key} is too large for float16')
  data = safetensors_numpy.save(halves)
  if len(data) > _MOST_BYTES:
    raise SystemExit(f'{export}: {len(data)} bytes, more than {_MOST_BYTES}: train a narrower run')
  manifest = json.loads((export / names.MANIFEST).read_text('utf-8'))
  digest = {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
  manifest |= {'programs': {}, 'files': {names.PARAMETERS: digest}}
  manifest['parameters'] = {
    key: {'shape': list(half.shape), 'dtype': 'float16'} for key, half in halves.items()
  }
  folder = names.SHIPPED / name
  folder.mkdir(parents=True, exist_ok=True)
  (folder / names.PARAMETERS).write_bytes(data)
  (folder / names.MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n', 'utf-8')
  return folder


if __name__ == '__main__':
  print(ship(pathlib.Path(sys.argv[1]), sys.argv[2]))
