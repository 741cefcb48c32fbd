"""A mesh of all devices with one axis, `data`.

Batches are sharded over it; everything else is replicated, except states if requested.
"""

from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from step_jax.errors import ConfigError

# Smaller arrays are always replicated, because gathering them is dominated by latency.
_SMALL = 2**12


def make_mesh() -> jax.sharding.Mesh:
  """Mesh of all devices of all hosts."""
  # Convolutions do not work with Explicit axes, the default of jax.
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,))


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Sharding in which every device holds the whole array."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def split(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Sharding of the first axis over the devices."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))


def of_state(mesh: jax.sharding.Mesh, state: Any, fsdp: bool) -> Any:
  """Sharding of each array of a state: replicated, or sharded over the devices.

  With `fsdp` (Zhao et al. 2023, fully sharded data parallel), an array is sharded along its longest
  axis that is divisible by the number of devices. Small arrays, and arrays without such an axis,
  are replicated.

  Args:
    mesh: mesh from `make_mesh`.
    state: tree of arrays, or of their shapes.
    fsdp: whether to shard.
  """

  def sharding(leaf):
    fitting = [axis for axis, size in enumerate(leaf.shape) if size and size % mesh.size == 0]
    if not fsdp or leaf.size < _SMALL or not fitting:
      return replicated(mesh)
    axis = max(fitting, key=lambda axis: (leaf.shape[axis], axis))
    spec = jax.sharding.PartitionSpec(*[None] * axis, 'data')
    return jax.sharding.NamedSharding(mesh, spec)

  return jax.tree.map(sharding, state)


def check_batch_size(batch_size: int) -> None:
  """Checks that the global batch size is divisible by the number of devices.

  Raises:
    ConfigError: it is not.
  """
  devices = jax.device_count()
  if batch_size % devices:
    raise ConfigError(
      f'batch_size={batch_size} does not divide by the {devices} devices: use '
      f'{max(1, batch_size // devices) * devices} or another multiple'
    )


def to_global(mesh: jax.sharding.Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Creates arrays that are sharded over the mesh from the parts that this host has read.

  Args:
    mesh: mesh from `make_mesh`.
    batch: name -> `[global batch / number of hosts, …]`.
  """
  sharding = split(mesh)
  return {
    name: jax.make_array_from_process_local_data(
      sharding, value, (len(value) * jax.process_count(), *value.shape[1:])
    )
    for name, value in batch.items()
  }


def all_hosts(condition: bool) -> bool:
  """Whether the condition holds on every host; all hosts must call this."""
  return bool(np.all(multihost_utils.process_allgather(np.asarray(condition))))


def put_replicated(mesh: jax.sharding.Mesh, tree: Any) -> Any:
  """Copies host arrays to every device."""
  return jax.device_put(tree, replicated(mesh))
