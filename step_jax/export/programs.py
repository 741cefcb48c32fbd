"""What a trained run computes, as StableHLO for every platform, batch and size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import pathlib

import flax.traverse_util
import jax
from jax import export
import numpy as np

PLATFORMS = ('cpu', 'cuda', 'tpu')


@dataclasses.dataclass(frozen=True)
class Program:
  """One exported function, `(parameters, *inputs) -> output`.

  Attributes:
    function: takes a dict `name -> array` of parameters first.
    exported: the same, lowered.
    parameters: their names, in the order in which the flat program takes them.
    inputs: further arguments, name -> symbolic shape and type.
    output: name of the result.
    constraints: on the symbols in the shapes.
    does: what it computes, in words.
  """

  function: Callable
  exported: export.Exported
  parameters: tuple[str, ...]
  inputs: Mapping[str, tuple[str, type]]
  output: str
  constraints: tuple[str, ...]
  does: str


@dataclasses.dataclass(frozen=True)
class Bundle:
  """What a run exports.

  Attributes:
    arrays: parameters, `NETWORK/LAYER/…/LEAF -> array`, in alphabetical order.
    programs: name -> program.
    usage: command lines of the example, for the README.
    smallest, multiple: what sides of images must be, in px, where a program fixes its size.
    example: a script that runs the programs with JAX alone, copied into the export.
  """

  arrays: Mapping[str, np.ndarray]
  programs: Mapping[str, Program]
  usage: Sequence[str]
  smallest: int
  multiple: int
  example: pathlib.Path = pathlib.Path(__file__).with_name('load_example.py')


def flatten(params: Mapping) -> dict[str, np.ndarray]:
  """Host arrays of a tree of parameters, as `Bundle.arrays`."""
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  # Safetensors writes the memory of an array, whatever its order. Scalars stay scalars.
  return {name: np.asarray(flat[name], np.float32, order='C') for name in sorted(flat)}


def lower(
  function: Callable,
  arrays: Mapping[str, np.ndarray],
  network: str,
  inputs: Mapping[str, tuple[str, type]],
  output: str,
  does: str,
  constraints: tuple[str, ...] = (),
  platforms: Sequence[str] = PLATFORMS,
) -> Program:
  """Exports a function of parameters and inputs.

  Args:
    function: `(params, *inputs) -> array`, where `params` is a tree.
    arrays: parameters of all programs; the function takes those below `network/`.
    network, inputs, output, does, constraints: see `Program`.
    platforms: that it is lowered for.
  """
  names = tuple(name for name in arrays if name.startswith(f'{network}/'))
  taken = {name: jax.ShapeDtypeStruct(arrays[name].shape, arrays[name].dtype) for name in names}
  function = _flat(function)
  with _no_paths():
    exported = export.export(jax.jit(function), platforms=platforms)(
      taken, *arguments(inputs, constraints)
    )
  return Program(function, exported, names, inputs, output, constraints, does)


def _flat(function: Callable) -> Callable:
  """Takes parameters by flat names in place of trees."""

  def call(flat: Mapping, *arguments):
    return function(flax.traverse_util.unflatten_dict(flat, sep='/'), *arguments)

  return call


def arguments(inputs: Mapping, constraints: Sequence[str]) -> list[jax.ShapeDtypeStruct]:
  """Arguments of symbolic shapes; the same letter is the same number in all of them.

  Args:
    inputs: name -> shape, as `jax.export.symbolic_shape` takes it, and type.
    constraints: on its letters.
  """
  scope = export.SymbolicScope(constraints)
  return [
    jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
    for shape, dtype in inputs.values()
  ]


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
  """Programs would name the source files of whoever exported them."""
  name = 'jax_traceback_in_locations_limit'
  before = getattr(jax.config, name)
  jax.config.update(name, 0)
  try:
    yield
  finally:
    jax.config.update(name, before)
