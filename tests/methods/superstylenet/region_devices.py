"""Prints the largest relative difference of states after two steps on one and on eight devices.

Style codes must be equal.

Run by `test_region_devices.py` in a separate process with eight CPU devices.
"""

import json

import jax
import numpy as np
import region_runs

from step_jax import methods, weights
from step_jax.methods.superstylenet import extraction
from step_jax.train import mesh as mesh_lib


def main():
  assert jax.device_count() == 8
  config = region_runs.config(batch_size=8)
  step = methods.abstract_step(config, (16, 16))
  random = np.random.default_rng(0)
  batch = {
    'image': random.integers(0, 256, step.batch['image'].shape, np.uint8),
    'labels': random.integers(0, 5, step.batch['labels'].shape, np.uint8),
    'codes': random.random(step.batch['codes'].shape, np.float32),
  }
  frozen = weights.load_features('squeezenet1_1', ('conv1',), 'random').params
  first = jax.jit(step.step.init)(jax.random.key(0))
  images = random.integers(0, 256, (10, 32, 32, 3), np.uint8)
  maps = random.integers(0, 5, (10, 32, 32), np.uint8)
  states, codes = [], []
  for devices in (1, 8):
    mesh = jax.make_mesh(
      (devices,), ('data',), devices=jax.devices()[:devices],
      axis_types=(jax.sharding.AxisType.Auto,),
    )  # fmt: skip
    state = mesh_lib.put_replicated(mesh, jax.device_get(first))
    inputs = mesh_lib.to_global(mesh, batch), mesh_lib.put_replicated(mesh, {'features': frozen})
    train_step = jax.jit(step.step.train_step)
    for _ in range(2):
      state, _ = train_step(state, *inputs)
    codes.append(extraction.Extractor(5, 32, mesh).all(images, maps))
    states.append(jax.device_get((state.params, state.ema, state.stats)))
  jax.tree.map(np.testing.assert_array_equal, *codes)
  # Adam without a first moment moves by the sign of tiny gradients. Rounding decides the sign for
  # biases before norms, whose true gradient is zero: these started at zero and are as small as
  # moves.
  far = lambda a, b: (
    float(np.mean(np.abs(a - b)) / np.abs(a).max()) if np.abs(a).max() > 2e-3 else 0
  )
  differences = [x for x in jax.tree.leaves(jax.tree.map(far, *states)) if x]
  assert len(differences) > 100
  print(json.dumps(max(differences)))


if __name__ == '__main__':
  main()
