"""Reads the reference vectors in tests/golden.

They were computed by the original networks, losses and optimizers, on 64 px images, batch size 2.
Parameters are not stored but generated: for the i-th variable of a case, in sorted order,
`r = RandomState(1234 + i).standard_normal(shape)`. Gammas are 1 + 0.05 r. Others are 0.05 r (fill
A), 0.3 r (fill C), or r for weights and 0.05 r for the rest (fill B).
"""

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / 'golden'

VGG16_CHANNELS = (
  ('conv1_1', 3, 64),
  ('conv1_2', 64, 64),
  ('conv2_1', 64, 128),
  ('conv2_2', 128, 128),
  ('conv3_1', 128, 256),
  ('conv3_2', 256, 256),
  ('conv3_3', 256, 256),
  ('conv4_1', 256, 512),
  ('conv4_2', 512, 512),
  ('conv4_3', 512, 512),
  ('conv5_1', 512, 512),
  ('conv5_2', 512, 512),
  ('conv5_3', 512, 512),
)


def load(case: str) -> dict[str, np.ndarray]:
  with np.load(FOLDER / f'{case}.npz', allow_pickle=False) as file:
    return dict(file)


def draw_variables(vectors, fill: str, prefix: str = '') -> dict[str, np.ndarray]:
  """Variables of a case by their TensorFlow names."""
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
  if f'{prefix}var_sum' in vectors and fill == 'A':
    sums = [value.sum(dtype=np.float64) for value in variables.values()]
    np.testing.assert_allclose(sums, vectors[f'{prefix}var_sum'], rtol=1e-5, atol=1e-4)
  return variables


def draw_run() -> dict[str, np.ndarray]:
  """The variables of a checkpoint of the original's main training, by TensorFlow names.

  All networks: averages have the reference values, raw variables twice these values.
  """
  found = {'global_step': np.int64(1234), 'beta1_power': np.float32(0.5)}
  for case, prefix in (
    ('case1_style_encoder', ''),
    ('case2_generator', 'full_'),
    ('case3_discriminator', ''),
  ):
    for name, value in draw_variables(load(case), 'A', prefix).items():
      found[f'{name}/Adam'] = np.zeros(3, np.float32)
      if case == 'case3_discriminator':
        found[name] = value
      else:
        found[name] = 2 * value
        found[f'{name}/ExponentialMovingAverage'] = value
  return found


def draw_vgg16(he: bool) -> dict[str, dict[str, np.ndarray]]:
  """Parameters for `models.VGG16` with the input format of the reference (BGR, minus mean)."""
  shapes = {}
  for name, inputs, outputs in VGG16_CHANNELS:
    shapes |= {f'{name}/biases': (outputs,), f'{name}/filter': (3, 3, inputs, outputs)}
  params = {
    'input': {
      'mean': np.array([123.68, 116.779, 103.939], np.float32),
      'scale': np.ones(3, np.float32),
    }
  }
  for k, name in enumerate(sorted(shapes)):
    shape = shapes[name]
    layer, leaf = name.split('/')
    scale = np.sqrt(2 / (9 * shape[2])) if he and leaf == 'filter' else 0.02
    value = (np.random.RandomState(1234 + k).standard_normal(shape) * scale).astype(np.float32)
    if name == 'conv1_1/filter':
      value = value[:, :, ::-1]
    leaf = {'filter': 'kernel', 'biases': 'bias'}[leaf]
    params.setdefault(layer, {})[leaf] = value
  return params


def assert_close(actual, expected, tolerance: float = 1e-4):
  """Checks that the largest difference is at most `tolerance` times the largest value."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, (actual.shape, expected.shape)
  scale = np.abs(expected).max()
  worst = np.abs(actual - expected).max() / max(scale, 1e-30)
  assert worst <= tolerance, f'differs by {worst:.2e} of the largest value {scale:.3g}'
  assert np.isfinite(actual).all()


def norm(x) -> float:
  return float(np.linalg.norm(np.asarray(x, np.float64)))
