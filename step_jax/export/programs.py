"""Programs of a trained run as StableHLO, for any platform, batch and image size."""

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
    function: function whose first argument is a dict of parameters, `name -> array`.
    exported: the exported function.
    parameters: names of the parameters, in the order of the arguments of the flat program.
    inputs: other arguments, name -> symbolic shape and type.
    output: name of the result.
    constraints: constraints on the symbols in the shapes.
    does: description.
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
  """Everything that a run exports.

  Attributes:
    arrays: parameters, `NETWORK/LAYER/…/LEAF -> array`, in alphabetical order.
    programs: name -> program.
    usage: command lines of the example, for the README.
    smallest, multiple: minimum and divisor of image sides, px, for programs of a fixed size.
    example: script that runs the programs with only JAX, copied into the export.
  """

  arrays: Mapping[str, np.ndarray]
  programs: Mapping[str, Program]
  usage: Sequence[str]
  smallest: int
  multiple: int
  example: pathlib.Path = pathlib.Path(__file__).with_name('load_example.py')


def flatten(params: Mapping) -> dict[str, np.ndarray]:
  """Converts a parameter tree to host arrays for `Bundle.arrays`."""
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  # C order, because safetensors writes the memory of an array. Scalars stay scalars.
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
    arrays: parameters of all programs; the function gets those of `network`.
    network: network whose parameters the function gets.
    inputs, output, does, constraints: see `Program`.
    platforms: platforms to export for.
  """
  names = tuple(name for name in arrays if name.startswith(f'{network}/'))
  specs = {name: jax.ShapeDtypeStruct(arrays[name].shape, arrays[name].dtype) for name in names}
  function = _flat(function)
  with _no_paths():
    exported = export.export(jax.jit(function), platforms=platforms)(
      specs, *arguments(inputs, constraints)
    )
  return Program(function, exported, names, inputs, output, constraints, does)


def _flat(function: Callable) -> Callable:
  """Makes a function take parameters with flat names instead of a tree."""

  def call(flat: Mapping, *arguments):
    return function(flax.traverse_util.unflatten_dict(flat, sep='/'), *arguments)

  return call


def arguments(inputs: Mapping, constraints: Sequence[str]) -> list[jax.ShapeDtypeStruct]:
  """Arguments with symbolic shapes; the same symbol is the same size in all of them.

  Args:
    inputs: name -> shape for `jax.export.symbolic_shape`, and type.
    constraints: constraints on its symbols.
  """
  scope = export.SymbolicScope(constraints)
  return [
    jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
    for shape, dtype in inputs.values()
  ]


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
  """Keeps paths of source files out of exported programs."""
  name = 'jax_traceback_in_locations_limit'
  before = getattr(jax.config, name)
  jax.config.update(name, 0)
  try:
    yield
  finally:
    jax.config.update(name, before)
