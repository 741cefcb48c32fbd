"""One piece of work to measure: ours, and how others do the same."""

from collections.abc import Callable, Sequence
import dataclasses

import jax

from step_jax.bench import timing

# Calls of vendors' libraries, into whose work the compiler's count does not look on every device.
_OPAQUE = ('__cublas$', '__cudnn$')


@dataclasses.dataclass(frozen=True)
class Program:
  """What the compiler says of a program; None where it cannot tell.

  Attributes:
    flops: floating-point operations of one call.
    counted: where that number is from: `compiled program`, `program as written`, or `formula`.
    bytes_accessed: read and written by all its parts; what stays in a cache between two parts
      counts again.
    peak_bytes: arguments, results and temporary arrays.
  """

  flops: float | None = None
  counted: str = ''
  bytes_accessed: float | None = None
  peak_bytes: int | None = None

  def then(self, other: 'Program') -> 'Program':
    """Of this program and another one after it."""
    add = lambda a, b: None if a is None or b is None else a + b
    peaks = self.peak_bytes, other.peak_bytes
    return Program(
      add(self.flops, other.flops),
      self.counted,
      add(self.bytes_accessed, other.bytes_accessed),
      None if None in peaks else max(peaks),
    )


@dataclasses.dataclass(frozen=True)
class Variant:
  """One way in which a peer does the work.

  Attributes:
    name: for the table.
    make: gets it ready.
  """

  name: str
  make: Callable[[], timing.Work]


def no_variants() -> Sequence[Variant]:
  """Of work that no peer does."""
  return ()


@dataclasses.dataclass(frozen=True)
class Case:
  """One piece of work.

  Attributes:
    name: for the table.
    items: how many a call deals with.
    unit: what they are.
    work: ours.
    program: what the compiler says of it.
    variants: how a peer does the same work with the same parameters and inputs.
  """

  name: str
  items: int
  unit: str
  work: timing.Work
  program: Program
  variants: Callable[[], Sequence[Variant]] = no_variants


def compile_(jitted, *args) -> tuple[Callable, Program]:
  """Compiles a function for its arguments (arrays, or their shapes), and asks what it costs."""
  lowered = jitted.lower(*args)
  compiled = lowered.compile()
  costs, counted = compiled.cost_analysis() or {}, 'compiled program'
  if any(name in compiled.as_text() for name in _OPAQUE):
    costs = {**costs, **(lowered.cost_analysis() or {})}
    counted = 'program as written'
  memory = compiled.memory_analysis()
  peak = memory and (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    + memory.temp_size_in_bytes
    - memory.alias_size_in_bytes
  )
  return compiled, Program(costs.get('flops'), counted, costs.get('bytes accessed'), peak)


def calling(function: Callable, *args) -> timing.Work:
  """Work that calls a function on the same arguments again and again."""

  def work(calls):
    for _ in range(calls):
      result = function(*args)
    jax.block_until_ready(result)

  return work


def training(step: Callable, state, batch, frozen) -> timing.Work:
  """Work that trains on one batch; each call goes on from the state before, which it gives away."""
  kept = [state]
  del state

  def work(calls):
    for _ in range(calls):
      kept[0], metrics = step(kept[0], batch, frozen)
    jax.block_until_ready((kept[0], metrics))

  return work
