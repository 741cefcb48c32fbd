"""Prints the largest relative difference of states after steps on one and on eight devices.

Run by `test_psp_devices.py` in a separate process with eight CPU devices, for both stages.
"""

import json

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import test_psp_training as training

from step_jax.methods.psp import train_psp, train_stylegan2


def differences(method, batch, frozen, steps):
  """Differences of parameters, averages and statistics after some steps, relative to maxima."""
  devices = jax.devices()
  assert len(devices) == 8
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  everywhere = NamedSharding(mesh, PartitionSpec())
  split = NamedSharding(mesh, PartitionSpec('data'))
  states = []
  for place, batch_place in ((devices[0], devices[0]), (everywhere, split)):
    state = jax.device_put(jax.jit(method.init)(jax.random.key(0)), place)
    own = jax.device_put(batch, batch_place), jax.device_put(frozen, place)
    step = jax.jit(method.train_step)
    for _ in range(steps):
      state, _ = step(state, *own)
    states.append(jax.device_get((state.params, state.ema, state.stats)))
  compare = lambda a, b: float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3))
  return max(jax.tree.leaves(jax.tree.map(compare, *states)))


def main():
  config = training.stylegan2_config()
  found = {
    'stylegan2': differences(
      train_stylegan2.make(config), {'image': training.pictures(8)}, {}, steps=2
    )
  }
  config = training.psp_config(**{'loss.lpips': 0.0})
  objectives = training.psp_objectives(config)
  batch = {name: training.pictures(8, 64) for name in ('source', 'target')}
  found['psp'] = differences(train_psp.make(objectives), batch, {}, steps=2)
  print(json.dumps(found))


if __name__ == '__main__':
  main()
