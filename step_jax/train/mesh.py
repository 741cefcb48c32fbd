"""Devices as one mesh with one axis, `data`.

Batches are split over it, everything else is copied; states may be split as well.
"""

from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from step_jax.errors import ConfigError

# Arrays of fewer numbers are copied in any case: gathering them is more messages than bytes.
_SMALL = 2**12


def make_mesh() -> jax.sharding.Mesh:
  """All devices of all hosts in one row."""
  # Automatic axes: convolutions do not run on the explicit ones that jax makes by default.
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,))


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Every device holds the whole array."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def split(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Every device holds its part of the first axis."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))


def of_state(mesh: jax.sharding.Mesh, state: Any, fsdp: bool) -> Any:
  """Where each array of a state lies: on every device, or split evenly over them.

  Split (Zhao et al. 2023, fully sharded data parallel), an array is so along its longest axis that
  divides by the number of devices; it is copied where it has none, or is small.

  Args:
    mesh: from `make_mesh`.
    state: tree of arrays, or their shapes.
    fsdp: whether to split.
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
  """Makes sure that a global batch divides evenly over all devices.

  Raises:
    ConfigError: it does not.
  """
  devices = jax.device_count()
  if batch_size % devices:
    raise ConfigError(
      f'batch_size={batch_size} does not divide by the {devices} devices: use '
      f'{max(1, batch_size // devices) * devices} or another multiple'
    )


def to_global(mesh: jax.sharding.Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Arrays split over the mesh, from the part of each that this host has read.

  Args:
    mesh: from `make_mesh`.
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
  """Whether the condition holds on every host; all of them must ask."""
  return bool(np.all(multihost_utils.process_allgather(np.asarray(condition))))


def put_replicated(mesh: jax.sharding.Mesh, tree: Any) -> Any:
  """Copies host arrays to every device."""
  return jax.device_put(tree, replicated(mesh))
