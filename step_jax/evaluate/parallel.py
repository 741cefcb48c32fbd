"""Scoring on all devices at once, with the same numbers on one device as on many.

Pictures are scored in small fixed batches, one after another on each device; more devices score
more of these at a time, but never a larger one, so that rounding does not depend on their number.
On CPUs it still depends on the number of XLA's threads: as many as there are cores, or devices
where these are more; the environment variable `NPROC` stands in for the cores.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from step_jax.train import mesh as mesh_lib


def over_devices(mesh: jax.sharding.Mesh, function: Callable) -> Callable:
  """Compiles a function of batches to run on every device, each with a batch of its own.

  Args:
    mesh: all devices, from `train.mesh.make_mesh`.
    function: `(*constants, batch) -> tree of arrays [b, …]`, where `batch` is a dict of arrays
      `[b, …]`.

  Returns:
    The function of host batches `[mesh.size * b, …]`, as `data.pipeline.eval_batches(…, parts =
    mesh.size)` makes them, on every host the same; results are host arrays of that length.
    Constants are trees that are copied to every device.
  """
  split, copied = jax.sharding.PartitionSpec('data'), jax.sharding.PartitionSpec()

  def run(constants, batch):
    return function(*constants, batch)

  mapped = jax.jit(
    jax.shard_map(run, mesh=mesh, in_specs=(copied, split), out_specs=split, check_vma=False)
  )

  def call(*args):
    *constants, batch = args
    results = mapped(tuple(constants), _put(mesh, batch))
    return jax.tree.map(np.asarray, _gather(results))

  return call


def _put(mesh: jax.sharding.Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  sharding = mesh_lib.split(mesh)

  def put(value):
    parts = [
      jax.device_put(value[index], device)
      for device, index in sharding.addressable_devices_indices_map(value.shape).items()
    ]
    return jax.make_array_from_single_device_arrays(value.shape, sharding, parts)

  return {name: put(value) for name, value in batch.items()}


def _gather(tree: Any) -> Any:
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)
