"""Reference vectors of SuperStyleNet: small ones in tests/golden, large ones in the shared folder.

Tests use all files that match a pattern, so new vectors only need new files.
"""

import functools
import os
import pathlib

import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'superstylenet'
SHARED = (
  pathlib.Path(os.environ.get('STEP_JAX_SHARED', pathlib.Path(__file__).parents[4] / 'shared'))
  / 'golden'
  / 'superstylenet'
)


def names(pattern: str) -> list[str]:
  """Names of vectors that match a pattern, in both folders."""
  return sorted({p.stem for folder in (GOLDEN, SHARED) for p in folder.glob(f'{pattern}.npz')})


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
  for folder in (GOLDEN, SHARED):
    path = folder / f'{name}.npz'
    if path.exists():
      with np.load(path, allow_pickle=False) as file:
        return dict(file)
  pytest.skip(f'{SHARED / name}.npz is not here (STEP_JAX_SHARED)')


def part(vectors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """Arrays whose names start with a prefix, by their names without it."""
  return {name[len(prefix) :]: v for name, v in vectors.items() if name.startswith(prefix)}
