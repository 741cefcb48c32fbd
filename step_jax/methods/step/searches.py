"""Searches for neighbours: mining by style distance, and IMLE's nearest samples."""

from collections.abc import Sequence

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.methods.step.search import nearest, neighbors
from step_jax.weights import nets

# Neighbours that StEP keeps, and how many samples IMLE draws for each code.
NEAREST, FARTHEST = 5, 13
SAMPLE_FACTOR = 10
_Z_DIM = 8
# In which synthetic styles vary.
_WAYS = 32


def style_length(features: str) -> int:
  """Length of a style vector: the upper triangles of the Gram matrices of all taps."""
  net = config_lib.FEATURES[features]
  shapes = nets.shapes(net['net'])
  channels = (
    sum(
      shape[-1]
      for path, shape in shapes.items()
      # A block of SqueezeNet ends in two convolutions side by side.
      if path in (f'{tap}/kernel', f'{tap}/expand1/kernel', f'{tap}/expand3/kernel')
    )
    for tap in net['taps']
  )
  return sum(size * (size + 1) // 2 for size in channels)


def random_styles(count: int, length: int) -> np.ndarray:
  """Random style vectors, float32 `[count, length]`, that vary in a few ways, as those of pictures.

  Were all entries independent, all distances would be nearly the same.
  """
  rng = np.random.default_rng(0)
  ways = rng.standard_normal((count, _WAYS), np.float32)
  vectors = ways @ rng.standard_normal((_WAYS, length), np.float32)
  vectors += rng.standard_normal(length, np.float32)
  return vectors


def random_codes(count: int, factor: int = SAMPLE_FACTOR) -> tuple[np.ndarray, np.ndarray]:
  """Random codes `[count, 8]`, and `factor` times as many samples, float32."""
  rng = np.random.default_rng(0)
  codes = rng.standard_normal((count, _Z_DIM), np.float32)
  return codes, rng.standard_normal((factor * count, _Z_DIM), np.float32)


def mining_case(settings: Settings) -> case.Case:
  """The nearest and farthest of style vectors that are mined already; vectors lie in memory."""
  count, length = settings.count, style_length(settings.features)
  vectors = random_styles(count, length)

  def work(calls):
    for _ in range(calls):
      neighbors.find_neighbors(vectors, NEAREST, FARTHEST)

  def variants():
    from step_jax.methods.step.ports import searches as torch_searches

    return torch_searches.mining_variants(vectors, NEAREST, FARTHEST)

  # Of the products alone, each pair once; many programs run, one a pair of blocks.
  program = case.Program(flops=1.0 * count**2 * length, counted='formula')
  return case.Case('mining', count**2, 'distances', work, program, variants)


def imle_case(settings: Settings) -> case.Case:
  """The nearest of ten samples a code, for every code; both lie on the device."""
  codes, samples = random_codes(settings.count)
  on_device = jax.device_put((codes, samples))
  compiled, program = case.compile_(jax.jit(nearest.nearest_samples), *on_device)
  # The compiler counts the body of a loop once.
  flops = 2.0 * codes.size * len(samples)
  program = case.Program(flops, 'formula', None, program.peak_bytes)

  def variants() -> Sequence[case.Variant]:
    from step_jax.methods.step.ports import searches as torch_searches

    return torch_searches.imle_variants(codes, samples)

  return case.Case(
    'imle', len(codes), 'codes', case.calling(compiled, *on_device), program, variants
  )
