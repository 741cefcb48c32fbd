"""Reference vectors of pSp and StyleGAN2: small ones in tests/golden/psp, large ones shared.

Parameters are stored as `w::KEY` or `TAG::w::KEY`, or generated as `loc + scale * z` with one
stream of NumPy's legacy generator over the keys in order.
"""

import json
import os
import pathlib

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parents[2] / 'golden' / 'psp'
SHARED = pathlib.Path(
  os.environ.get('STEP_JAX_SHARED', pathlib.Path(__file__).parents[4] / 'shared')
)
SHARED_VECTORS = SHARED / 'golden' / 'psp'


def files(pattern: str) -> list:
  """Parameters for pytest: all matching vector files, or one that skips if there are none."""
  found = {path.name: path for folder in (SHARED_VECTORS, HERE) for path in folder.glob(pattern)}
  if not found:
    reason = f'no {pattern} in {HERE} or {SHARED_VECTORS} (STEP_JAX_SHARED)'
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=pattern)]
  return [pytest.param(path, id=path.stem) for _, path in sorted(found.items())]


def load(name: str) -> dict[str, np.ndarray]:
  """Loads a vector file by name; skips the test if it is missing."""
  for folder in (HERE, SHARED_VECTORS):
    path = folder / f'{name}.npz'
    if path.exists():
      return read(path)
  pytest.skip(f'{name}.npz is not in {HERE} or {SHARED_VECTORS} (STEP_JAX_SHARED)')


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(path, allow_pickle=False) as file:
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in file.items()}


def stored(vectors, tag: str = '') -> dict[str, np.ndarray]:
  """The state dict stored under `TAG::w::` or `w::`."""
  prefix = f'{tag}::w::' if tag else 'w::'
  return {k.removeprefix(prefix): v for k, v in vectors.items() if k.startswith(prefix)}


def draw(vectors, prefix: str = 'param') -> dict[str, np.ndarray]:
  """Generates a state dict from its recipe; checks its first values and sums."""
  random = np.random.RandomState(int(vectors[f'{prefix}_seed']))
  columns = [vectors[f'{prefix}_{name}'] for name in ('keys', 'shapes', 'loc', 'scale', 'abs')]
  state = {}
  for key, shape, loc, scale, positive in zip(*columns, strict=True):
    z = random.standard_normal(json.loads(str(shape)))
    z = np.abs(z, out=z) if positive else z
    z *= scale
    z += loc
    state[str(key)] = z.astype(np.float32)
  firsts = [x.ravel()[0] for x in state.values()]
  np.testing.assert_array_equal(firsts, vectors[f'{prefix}_first'])
  sums = [x.sum(dtype=np.float64) for x in state.values()]
  np.testing.assert_allclose(sums, vectors[f'{prefix}_sum'], rtol=1e-6, atol=1e-6)
  return state
