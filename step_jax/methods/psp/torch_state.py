"""Converts PyTorch state dicts to variables of our modules with an ordered list of keys and paths.

Each network has a function that lists the keys of a PyTorch state dict and the paths of their
arrays here. Conversion of axes, and checks of shapes and of missing and unknown keys, are shared.
"""

from collections.abc import Callable, Iterable, Mapping
import functools
import re
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from step_jax.errors import WeightsError, first_line, shown
from step_jax.methods.psp import fir

State = Mapping[str, np.ndarray]
Variables = dict[str, Any]

_IGNORED = re.compile(r'(.*\.)?num_batches_tracked')
_FILTER = np.outer(fir.TAPS, fir.TAPS)


class Entry(NamedTuple):
  """One array of a state dict.

  Attributes:
    key: name in PyTorch.
    path: path of the variable, starting with the collection: `params/mapping/fc0/kernel`. Arrays of
      several entries with the same path are stacked along a new first axis, in order.
    convert: converts PyTorch's axes to ours.
  """

  key: str
  path: str
  convert: Callable[[np.ndarray], np.ndarray] = lambda x: x


def conv(x: np.ndarray) -> np.ndarray:
  """Kernel `[out, in, k, k] -> [k, k, in, out]`."""
  return x.transpose(2, 3, 1, 0)


def modulated(x: np.ndarray) -> np.ndarray:
  """Kernel `[1, out, in, k, k] -> [k, k, in, out]`."""
  return conv(x[0])


def linear(x: np.ndarray) -> np.ndarray:
  """Kernel `[out, in] -> [in, out]`."""
  return x.T


def flattened(channels: int) -> Callable[[np.ndarray], np.ndarray]:
  """Kernel `[out, C * H * W] -> [H * W * C, out]` of a layer on flattened square maps."""

  def convert(x):
    side = int((x.shape[1] // channels) ** 0.5)
    return conv(x.reshape(-1, channels, side, side)).reshape(-1, x.shape[0])

  return convert


def nhwc(x: np.ndarray) -> np.ndarray:
  """Map `[B, C, H, W] -> [B, H, W, C]`."""
  return x.transpose(0, 2, 3, 1)


def flat(x: np.ndarray) -> np.ndarray:
  """Flattens an array to a vector."""
  return x.reshape(-1)


def scalar(x: np.ndarray) -> np.ndarray:
  """Converts an array with one value to a scalar."""
  return x.reshape(())


def dense(key: str, path: str, convert=linear) -> list[Entry]:
  """Entries of the kernel and bias of a layer."""
  return [
    Entry(f'{key}.weight', f'params/{path}/kernel', convert),
    Entry(f'{key}.bias', f'params/{path}/bias'),
  ]


def batch_norm(key: str, path: str, affine: bool = True) -> list[Entry]:
  """Entries of the parameters and running statistics of `models.norms.BatchNorm`."""
  leaves = {'weight': 'scale', 'bias': 'bias'} if affine else {}
  return [
    *(Entry(f'{key}.{theirs}', f'params/{path}/{ours}') for theirs, ours in leaves.items()),
    Entry(f'{key}.running_mean', f'batch_stats/{path}/mean'),
    Entry(f'{key}.running_var', f'batch_stats/{path}/var'),
  ]


def refusing(read: Callable) -> Callable:
  """Decorates a function `(state, where, …)` that reads a network: any error becomes one line.

  Arrays of an untrusted file may have any shape.
  """

  @functools.wraps(read)
  def reading(state, where='the state dict', *args, **kwargs):
    try:
      return read(state, where, *args, **kwargs)
    except WeightsError:
      raise
    except Exception as error:
      raise WeightsError(
        f'{where} has arrays that do not fit together ({first_line(error)}); get another copy'
      ) from error

  return reading


def shape_of(state: State, key: str, where: str) -> tuple[int, ...]:
  """Shape of an array that determines fields of a network.

  Raises:
    WeightsError: the array is missing.
  """
  if key not in state:
    raise WeightsError(f'{where} lacks {key}; give a complete state dict of this network')
  return np.shape(state[key])


def count(state: State, pattern: str) -> int:
  """Number of keys that match a pattern."""
  return sum(re.fullmatch(pattern, key) is not None for key in state)


def without_prefix(state: State, prefix: str) -> dict[str, np.ndarray]:
  """Arrays whose names start with a prefix, by their names without it."""
  return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def convert(
  state: State, entries: Iterable[Entry], init: Callable, example: Any, where: str
) -> Variables:
  """Converts a state dict to the variables of a module.

  Args:
    state: PyTorch name -> array.
    entries: entries of all arrays of the module.
    init: `init` of the module, a function of a key and `example`.
    example: shape of its input.
    where: the file, for messages.

  Returns:
    Collection -> tree of float32 arrays.

  Raises:
    WeightsError: an array is missing, unknown, not finite, or has another shape.
  """
  entries = list(entries)
  check_keys(state, entries, where)
  arrays: dict[str, Any] = {}
  for key, path, change in entries:
    array = np.asarray(state[key], np.float32)
    if not np.isfinite(array).all():
      raise WeightsError(f'{where} has values at {key} that are not finite; get another copy')
    try:
      changed = change(array)
    except (ValueError, IndexError, ZeroDivisionError):
      raise _misshapen(where, key, array.shape) from None
    arrays.setdefault(path, []).append((key, changed))
  expected = flax.traverse_util.flatten_dict(
    jax.eval_shape(init, jax.random.key(0), example), sep='/'
  )
  for path, shape in expected.items():
    for key, array in arrays.get(path, []):
      wanted = shape.shape[len(shape.shape) - array.ndim :]
      if array.shape != wanted or shape.shape not in (wanted, (len(arrays[path]), *wanted)):
        raise _misshapen(where, key, np.shape(state[key]))
  if missing := sorted(set(expected) ^ set(arrays)):
    raise ValueError(f'entries and module differ: {missing[:3]}')
  arrays = {path: [array for _, array in parts] for path, parts in arrays.items()}
  stacked = {
    path: np.stack(parts)
    if parts[0].ndim < expected[path].ndim
    else np.asarray(parts[0], order='C')
    for path, parts in arrays.items()
  }
  return flax.traverse_util.unflatten_dict(stacked, sep='/')


def check_keys(state: State, entries: Iterable[Entry], where: str) -> None:
  """Checks that a state dict has exactly the keys of a network.

  Counters of batch norm are ignored. Filters must be those of StyleGAN2.

  Raises:
    WeightsError: a key is missing or unknown, or a filter differs.
  """
  keys = {entry.key for entry in entries}
  missing = [key for key in keys if key not in state]
  if missing:
    more = f' and {len(missing) - 1} more arrays' if len(missing) > 1 else ''
    raise WeightsError(
      f'{where} lacks {min(missing)}{more}; give a complete state dict of this network'
    )
  for key in state:
    if key in keys or _IGNORED.fullmatch(key):
      continue
    if not key.endswith('.kernel'):
      raise WeightsError(f'{where} has {shown(key)}, which this network does not have')
    array = np.asarray(state[key], np.float32)
    if array.shape != _FILTER.shape or not any(
      np.allclose(array, gain * _FILTER, atol=1e-5) for gain in (1, 4)
    ):
      raise WeightsError(f'{where} has another filter than [1, 3, 3, 1] at {shown(key)}')


def _misshapen(where: str, key: str, shape: tuple[int, ...]) -> WeightsError:
  return WeightsError(
    f'{where} has the shape {list(shape)} at {key}, which does not fit its other arrays'
  )
