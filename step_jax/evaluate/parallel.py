"""Scoring on all devices, with identical results for any number of devices.

Images are scored in small batches of a fixed size. More devices process more batches at a time, but
not larger ones, so rounding does not depend on the number of devices. On CPUs it still depends on
the number of XLA threads: the number of cores, or of devices if there are more of them. The
environment variable `NPROC` overrides the number of cores.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from step_jax.train import mesh as mesh_lib


def over_devices(mesh: jax.sharding.Mesh, function: Callable) -> Callable:
  """Compiles a function of batches to run on every device, each with its own batch.

  Args:
    mesh: all devices, from `train.mesh.make_mesh`.
    function: `(*constants, batch) -> tree of arrays [b, …]`, where `batch` is a dict of arrays
      `[b, …]`.

  Returns:
    A function of host batches `[mesh.size * b, …]`, from `data.pipeline.eval_batches(…, parts =
    mesh.size)`, which must be the same on every host. Results are host arrays of that length.
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
