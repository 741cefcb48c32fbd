"""Runs an export; needs only JAX, flatbuffers (which JAX needs to read programs) and numpy.

python load_example.py PROGRAM INPUT.npy … OUT.npy

README.md lists the programs, and the shapes and types of their inputs.
"""

import hashlib
import json
import pathlib
import struct
import sys

from jax import export
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent


def load(folder=HERE):
  """Programs of an export: name -> function of its inputs, with the parameters included."""
  folder = pathlib.Path(folder)
  manifest = json.loads((folder / 'manifest.json').read_text())
  for name, file in manifest['files'].items():
    if hashlib.sha256((folder / name).read_bytes()).hexdigest() != file['sha256']:
      raise SystemExit(f'{folder / name}: differs from the exported file: copy it again')
  arrays = read_safetensors(folder / 'params.safetensors')

  def program(description):
    exported = export.deserialize(bytearray((folder / description['file']).read_bytes()))
    params = {name: arrays[name] for name in description['parameters']}
    return lambda *inputs: np.asarray(exported.call(params, *inputs))

  return {name: program(description) for name, description in manifest['programs'].items()}


def read_safetensors(path):
  """Reads a safetensors file: length of the header, header in JSON, then raw numbers."""
  data = path.read_bytes()
  (length,) = struct.unpack('<Q', data[:8])
  header = json.loads(data[8 : 8 + length])
  arrays = {}
  for name, entry in header.items():
    if name != '__metadata__':
      start, end = (8 + length + offset for offset in entry['data_offsets'])
      arrays[name] = np.frombuffer(data[start:end], '<f4').reshape(entry['shape'])
  return arrays


def main(name, *paths):
  """Runs the command above."""
  programs = load()
  if name not in programs:
    raise SystemExit(f'this export has no {name!r}: use one of {", ".join(programs)}')
  *inputs, out = paths
  np.save(out, programs[name](*map(np.load, inputs)))


if __name__ == '__main__':
  if len(sys.argv) < 4:
    raise SystemExit(__doc__)
  main(*sys.argv[1:])
