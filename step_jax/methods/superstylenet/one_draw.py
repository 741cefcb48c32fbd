"""Initialisation with a single call to the random number generator, which compiles fast."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np


def from_one_draw(init: Callable[..., Any]) -> Callable[..., Any]:
  """Makes a function of a key draw all its random bits in one call.

  Networks with hundreds of parameters use the generator for each of them, and compiling all of
  these calls takes minutes. The distributions are the same, but the numbers differ from those of
  `init`.

  Args:
    init: `key -> tree of arrays`; all its randomness must derive from the key.
  """

  def drawn(key: jax.Array) -> Any:
    closed, shape = jax.make_jaxpr(init, return_shape=True)(key)
    counter = _Bits(None)
    jax.eval_shape(lambda key: _evaluate(closed, [key], counter), key)
    bits = _Bits(jax.random.bits(key, (counter.used,), jnp.uint32))
    leaves = _evaluate(closed, [key], bits)
    return jax.tree.unflatten(jax.tree.structure(shape), leaves)

  return drawn


class _Bits:
  """Random bits that are used in order; without bits, only counts how many are needed."""

  def __init__(self, bits: jax.Array | None):
    self._bits = bits
    self.used = 0

  def take(self, shape: tuple[int, ...], width: int) -> jax.Array:
    size = int(np.prod(shape, dtype=np.int64))
    start, self.used = self.used, self.used + size
    bits = jnp.zeros(size, jnp.uint32) if self._bits is None else self._bits[start : self.used]
    return (bits >> (32 - width)).astype(f'uint{width}').reshape(shape)


def _evaluate(closed: core.ClosedJaxpr, arguments: list, bits: _Bits) -> list:
  """Evaluates a program with random bits from `bits`."""
  values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
  values |= dict(zip(closed.jaxpr.invars, arguments, strict=True))
  read = lambda atom: atom.val if isinstance(atom, core.Literal) else values[atom]
  for equation in closed.jaxpr.eqns:
    inputs, params = [read(atom) for atom in equation.invars], equation.params
    name = equation.primitive.name
    if name == 'random_bits':
      keys = inputs[0]
      outputs = [bits.take((*keys.shape, *params['shape']), params['bit_width'])]
    elif name == 'random_fold_in':
      outputs = [inputs[0]]
    elif name == 'random_split':
      outputs = [jnp.broadcast_to(inputs[0][..., None], (*inputs[0].shape, *params['shape']))]
    elif name in ('jit', 'pjit'):
      outputs = _evaluate(params['jaxpr'], inputs, bits)
    else:
      bound = equation.primitive.get_bind_params(params)
      # Before jax 0.12, functions were returned separately.
      functions, params = bound if isinstance(bound, tuple) else ((), bound)
      outputs = equation.primitive.bind(*functions, *inputs, **params)
      outputs = outputs if equation.primitive.multiple_results else [outputs]
    values |= dict(zip(equation.outvars, outputs, strict=True))
  return [read(atom) for atom in closed.jaxpr.outvars]
