"""Benchmark cases: our workload, and the same workload in peer libraries."""

import collections
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import re

import jax

from step_jax.bench import timing

# A convolution in the GPU vendor's library, which the compiler does not count.
_LIBRARY_CONV = re.compile(
  r'= \(?\w+\[([\d,]*)\].*? custom-call\(([^)]*)\).*dim_labels=\w+_(\w+)->(\w+),.*'
  r'custom_call_target="__cudnn\$conv(\w*)"'
)
_DEFINED = re.compile(r'^\s*(?:ROOT )?(%?[\w.-]+) = \(?\w+\[([\d,]*)\]', re.MULTILINE)
# Communication between devices: the operation, and the shapes of its results.
_COLLECTIVE = re.compile(
  r' = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\('
)
_SHAPE = re.compile(r'(pred|[a-z]+(\d+))\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Program:
  """Costs of a program as reported by the compiler; None if unknown.

  Attributes:
    flops: floating-point operations per call.
    counted: origin of `flops`: `compiled program`, `its convolutions`, or `formula`.
    bytes_accessed: bytes read and written by all operations; data that stays in a cache between two
      operations is counted again.
    peak_bytes: size of arguments, results and temporary arrays.
    collectives: communication operation -> bytes of its results per call.
  """

  flops: float | None = None
  counted: str = ''
  bytes_accessed: float | None = None
  peak_bytes: int | None = None
  collectives: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def then(self, other: 'Program') -> 'Program':
    """Costs of this program followed by another one."""
    add = lambda a, b: None if a is None or b is None else a + b
    peaks = self.peak_bytes, other.peak_bytes
    return Program(
      add(self.flops, other.flops),
      self.counted,
      add(self.bytes_accessed, other.bytes_accessed),
      None if None in peaks else max(peaks),
      dict(collections.Counter(self.collectives) + collections.Counter(other.collectives)),
    )


@dataclasses.dataclass(frozen=True)
class Variant:
  """One variant of a peer's implementation.

  Attributes:
    name: name in the table.
    make: prepares the workload.
  """

  name: str
  make: Callable[[], timing.Work]


def no_variants() -> Sequence[Variant]:
  """Variants of a workload without a peer: none."""
  return ()


@dataclasses.dataclass(frozen=True)
class Case:
  """One benchmark case.

  Attributes:
    name: name in the table.
    items: number of items per call.
    unit: name of the items.
    work: our workload.
    program: costs of our program.
    variants: returns a peer's variants of the workload, with the same parameters and inputs.
  """

  name: str
  items: int
  unit: str
  work: timing.Work
  program: Program
  variants: Callable[[], Sequence[Variant]] = no_variants


def compile_(jitted, *args) -> tuple[Callable, Program]:
  """Compiles a function for its arguments (arrays, or their shapes); returns it and its costs."""
  compiled = jitted.lower(*args).compile()
  text = compiled.as_text()
  costs, counted = dict(compiled.cost_analysis() or {}), 'compiled program'
  if library := library_flops(text):
    costs['flops'], counted = library, 'its convolutions'
  memory = compiled.memory_analysis()
  peak = memory and (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    + memory.temp_size_in_bytes
    - memory.alias_size_in_bytes
  )
  return compiled, Program(
    costs.get('flops'), counted, costs.get('bytes accessed'), peak, collective_bytes(text)
  )


def library_flops(text: str) -> float:
  """FLOPs of the convolutions of a compiled program that use the GPU vendor's library.

  Each has `2 * output * kernel / output channels`, forward and for both gradients, including
  products with padding. 0 if there are none.

  Args:
    text: the program as printed by XLA.
  """
  sizes = {name: _dimensions(shape) for name, shape in _DEFINED.findall(text)}
  total = 0
  for result, operands, kernel, labels, kind in _LIBRARY_CONV.findall(text):
    first, second = (sizes[name.strip().split(' ')[-1]] for name in operands.split(',')[:2])
    result = _dimensions(result)
    # Output and kernel of the forward pass, for the forward pass and both gradients.
    if kind == 'BackwardFilter':
      output, weights = second, result
    elif kind == 'BackwardInput':
      output, weights = first, second
    else:
      output, weights = result, second
    channels = output[labels.index('f')]
    assert weights[kernel.index('o')] == channels, (kind, output, weights)
    total += 2 * math.prod(output) * math.prod(weights) // channels
  return total


def collective_bytes(text: str) -> dict[str, int]:
  """Communication between devices in a program printed by XLA: operation -> bytes of results."""
  counts = {}
  for shapes, operation in _COLLECTIVE.findall(text):
    count = sum(
      math.prod(_dimensions(shape)) * (int(bits or 8) // 8)
      for _, bits, shape in _SHAPE.findall(shapes)
    )
    counts[operation] = counts.get(operation, 0) + count
  return counts


def _dimensions(shape: str) -> list[int]:
  return [int(size) for size in shape.split(',') if size]


def calling(function: Callable, *args) -> timing.Work:
  """Workload that calls a function repeatedly with the same arguments."""

  def work(calls):
    for _ in range(calls):
      result = function(*args)
    jax.block_until_ready(result)

  return work


def training(step: Callable, state, batch, frozen) -> timing.Work:
  """Workload that trains on one batch; each call continues from the last, donated state."""
  current = [state]
  del state

  def work(calls):
    for _ in range(calls):
      current[0], metrics = step(current[0], batch, frozen)
    jax.block_until_ready((current[0], metrics))

  return work
