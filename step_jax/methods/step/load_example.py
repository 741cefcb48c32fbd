"""Runs an export; needs only JAX, flatbuffers (which JAX needs to read programs) and numpy.

python load_example.py encode STYLE.npy CODES.npy
python load_example.py generate SOURCE.npy CODES.npy OUT.npy
python load_example.py sample COUNT CODES.npy

Images are uint8 arrays [n, height, width, 3], RGB, of any size; CODES are float32 [n, z].
"""

import hashlib
import json
import pathlib
import struct
import sys

from jax import export
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MULTIPLE = 8


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


def generate_any_size(generate, sources, codes):
  """Pads sources to multiples of 8 for `generate` by repeating edges, and crops the result."""
  height, width = sources.shape[1:3]
  margins = ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0))
  return generate(np.pad(sources, margins, mode='edge'), codes)[:, :height, :width]


def main(action, *arguments):
  """Runs one of the commands above."""
  run = load()
  *inputs, out = arguments
  if action == 'encode':
    result = run['encode'](np.load(inputs[0]))
  elif action == 'generate':
    result = generate_any_size(run['generate'], np.load(inputs[0]), np.load(inputs[1]))
  elif action == 'sample' and 'sample' in run:
    manifest = json.loads((HERE / 'manifest.json').read_text())
    noise = manifest['programs']['sample']['inputs'][0]
    shape = (int(inputs[0]), int(noise['shape'][1]))
    noise = np.random.default_rng(0).standard_normal(shape)
    result = run['sample'](noise.astype(np.float32))
  else:
    raise SystemExit(f'this export has no {action!r}: use one of {", ".join(run)}')
  np.save(out, result)


if __name__ == '__main__':
  if len(sys.argv) < 4:
    raise SystemExit(__doc__)
  main(*sys.argv[1:])
