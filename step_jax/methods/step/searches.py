"""Benchmarks of nearest-neighbour searches: mining by style distance, and IMLE."""

from collections.abc import Sequence

import jax
import numpy as np

from step_jax import config as config_lib
from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.methods.step.search import nearest, neighbors
from step_jax.weights import nets

# Number of neighbours in StEP, and number of samples per code in IMLE.
NEAREST, FARTHEST = 5, 13
SAMPLE_FACTOR = 10
_Z_DIM = 8
# Number of dimensions along which synthetic styles vary.
_WAYS = 32


def style_length(features: str) -> int:
  """Length of a style vector, which has the upper triangles of the Gram matrices of all taps."""
  net = config_lib.FEATURES[features]
  shapes = nets.shapes(net['net'])
  channels = (
    sum(
      shape[-1]
      for path, shape in shapes.items()
      # A block of SqueezeNet ends with two parallel convolutions.
      if path in (f'{tap}/kernel', f'{tap}/expand1/kernel', f'{tap}/expand3/kernel')
    )
    for tap in net['taps']
  )
  return sum(size * (size + 1) // 2 for size in channels)


def random_styles(count: int, length: int) -> np.ndarray:
  """Random style vectors, float32 `[count, length]`, with few degrees of freedom, as real styles.

  With independent entries, all distances would be nearly equal.
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
  """Search for the nearest and farthest style vectors, with vectors in main memory."""
  count, length = settings.count, style_length(settings.features)
  vectors = random_styles(count, length)

  def work(calls):
    for _ in range(calls):
      neighbors.find_neighbors(vectors, NEAREST, FARTHEST)

  def variants():
    from step_jax.methods.step.ports import searches as torch_searches

    return torch_searches.mining_variants(vectors, NEAREST, FARTHEST)

  # FLOPs of the products, each pair once; there are many programs, one per pair of blocks.
  program = case.Program(flops=1.0 * count**2 * length, counted='formula')
  return case.Case('mining', count**2, 'distances', work, program, variants)


def imle_case(settings: Settings) -> case.Case:
  """The nearest sample of each code, with ten samples per code, on the device."""
  codes, samples = random_codes(settings.count)
  on_device = jax.device_put((codes, samples))
  compiled, program = case.compile_(jax.jit(nearest.nearest_samples), *on_device)
  # The compiler counts the body of a loop only once.
  flops = 2.0 * codes.size * len(samples)
  program = case.Program(flops, 'formula', None, program.peak_bytes)

  def variants() -> Sequence[case.Variant]:
    from step_jax.methods.step.ports import searches as torch_searches

    return torch_searches.imle_variants(codes, samples)

  return case.Case(
    'imle', len(codes), 'codes', case.calling(compiled, *on_device), program, variants
  )
