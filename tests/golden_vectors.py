"""Reading the reference vectors in tests/golden; their README says how parameters are drawn."""

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / 'golden'


def load(case: str) -> dict[str, np.ndarray]:
  with np.load(FOLDER / f'{case}.npz', allow_pickle=False) as file:
    return dict(file)


def draw_variables(vectors, fill: str, prefix: str = '') -> dict[str, np.ndarray]:
  """The variables of a case by their TensorFlow names, drawn by the recipe."""
  variables = {}
  names = [str(name) for name in vectors[f'{prefix}var_names']]
  shapes = [json.loads(str(shape)) for shape in vectors[f'{prefix}var_shapes']]
  for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
    r = np.random.RandomState(1234 + i).standard_normal(shape)
    if name.endswith('/gamma'):
      value = 1 + 0.05 * r
    elif fill == 'C':
      value = 0.3 * r
    elif fill == 'B' and name.endswith('/weight'):
      value = r
    else:
      value = 0.05 * r
    variables[name] = value.astype(np.float32)
  return variables


def assert_close(actual, expected, tolerance: float = 1e-4):
  """Largest difference at most `tolerance` of the reference's largest value."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, (actual.shape, expected.shape)
  scale = np.abs(expected).max()
  worst = np.abs(actual - expected).max() / max(scale, 1e-30)
  assert worst <= tolerance, f'differs by {worst:.2e} of the largest value {scale:.3g}'
