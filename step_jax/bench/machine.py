"""Description of the machine, and measurements of its peak performance."""

import os
import pathlib
import platform

import jax
import jax.numpy as jnp

from step_jax import machine
from step_jax.bench import case, timing

_PACKAGES = (
  'step_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'grain', 'torch', 'scikit-learn', 'faiss-cpu',
)  # fmt: skip
# Sides of the matrices, and entries of the vector, by kind of device: much larger than caches, and
# large enough for peak performance.
_MATRIX = {'cpu': 2048}
_VECTOR = {'cpu': 2**26}
_LARGE_MATRIX, _LARGE_VECTOR = 8192, 2**28


def describe() -> dict:
  """Device, processor, cores, load and package versions, for a record."""
  device = jax.devices()[0]
  return {
    'device': device.platform,
    'kind': device.device_kind,
    'processor': _processor(),
    'cores': machine.cores(),
    'load': round(os.getloadavg()[0], 2),
    'python': platform.python_version(),
    'versions': machine.versions(_PACKAGES),
  }


def _processor() -> str:
  path = pathlib.Path('/proc/cpuinfo')
  lines = path.read_text().splitlines() if path.exists() else []
  names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  return names[0] if names else platform.processor() or platform.machine()


def matmul_ceiling(dtype: str, precision: str | None = None) -> tuple[timing.Work, float]:
  """A large square matrix product, and its number of floating-point operations.

  Args:
    dtype: type of the matrices.
    precision: see `jax.lax.Precision`; None is the setting of training.
  """
  side = _MATRIX.get(jax.default_backend(), _LARGE_MATRIX)
  keys = jax.random.split(jax.random.key(0))
  a, b = (jax.random.normal(key, (side, side), jnp.dtype(dtype)) for key in keys)
  product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
  return case.calling(product, a, b), 2.0 * side**3


def copy_ceiling() -> tuple[timing.Work, float]:
  """A pass over a large vector, and the number of bytes that it reads and writes."""
  count = _VECTOR.get(jax.default_backend(), _LARGE_VECTOR)
  x = jnp.zeros(count, jnp.float32)
  # A plain copy could be optimised away.
  return case.calling(jax.jit(lambda x: x + 1), x), 2.0 * x.nbytes
