"""Runs a benchmark and returns its record."""

from collections.abc import Callable, Sequence
import dataclasses
import gc
import logging

from step_jax.bench import case, machine, memory, timing
from step_jax.bench.settings import Settings, benches
from step_jax.errors import ConfigError, RunError

log = logging.getLogger(__name__)

# Rounds of the comparison between variants of a peer.
_TRIALS = 3
OURS, MATMUL, COPY = memory.OURS, 'matmul', 'copy'


@dataclasses.dataclass(frozen=True)
class Trial:
  """Result of one variant of a peer.

  Attributes:
    name: name of the variant.
    seconds: seconds per call, or None if it failed.
    failure: reason of the failure.
  """

  name: str
  seconds: float | None
  failure: str = ''


def try_variants(
  variants: Sequence[case.Variant], rounds: int = _TRIALS, clock: Callable | None = None
) -> tuple[list[Trial], timing.Work | None, str]:
  """Runs each variant for a few rounds, and keeps the fastest.

  Args:
    variants: variants of one peer.
    rounds: number of rounds per variant; the median is compared.
    clock: returns the time in seconds.

  Returns:
    All trials, and the fastest workload (warmed up) with its name; None and '' if all failed.
  """
  clocks = {} if clock is None else {'clock': clock}
  trials, best, best_name, fastest = [], None, '', float('inf')
  for variant in variants:
    work = None
    try:
      work = variant.make()
      times = timing.in_turn({'': work}, rounds, **clocks)['']
    # A variant that does not run here (no compiler, missing package) must not end the benchmark.
    except Exception as error:
      reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
      trials.append(Trial(variant.name, None, reason[:200]))
    else:
      seconds = timing.Spread.of(times).median
      trials.append(Trial(variant.name, seconds))
      if seconds < fastest:
        best, best_name, fastest = work, variant.name, seconds
    log.info('%s: %s', variant.name, trials[-1].failure or f'{trials[-1].seconds:.4g} s')
    # Free memory for the next variant.
    del work
    gc.collect()
  return trials, best, best_name


def measure_case(settings: Settings, benchmark: case.Case, exact: bool) -> dict:
  """Measures a case: ours, the best variant of the peer, and the ceilings, in alternation.

  Args:
    settings: settings of the benchmark.
    benchmark: the case.
    exact: whether float32 products use full precision, whatever the settings.

  Raises:
    RunError: a peer is requested, and none of its variants runs.
  """
  works = {OURS: benchmark.work}
  trials, peer = [], ''
  if settings.vs:
    trials, work, peer = try_variants(_chosen(benchmark.variants(), settings.variants))
    if work is None:
      reasons = '; '.join(f'{trial.name}: {trial.failure}' for trial in trials)
      raise RunError(f'--vs {settings.vs}: no variant of {benchmark.name} runs here: {reasons}')
    works[peer] = work
  dtype = 'float32' if exact else settings.dtype
  works[MATMUL], matmul_flops = machine.matmul_ceiling(dtype, 'highest' if exact else None)
  works[COPY], copy_bytes = machine.copy_ceiling()
  seconds = timing.in_turn(works, settings.repeats, settings.at_least)
  spread = {name: timing.Spread.of(times) for name, times in seconds.items()}
  ours, program = spread[OURS].median, benchmark.program
  ceilings = {
    'matmul_flops_per_second': matmul_flops / spread[MATMUL].median,
    'copy_bytes_per_second': copy_bytes / spread[COPY].median,
    'matmul_dtype': dtype,
  }
  result = {
    'name': benchmark.name,
    'items': benchmark.items,
    'unit': benchmark.unit,
    'seconds': spread[OURS],
    'rounds': seconds[OURS],
    'items_per_second': benchmark.items / ours,
    'program': program,
    'ceilings': ceilings,
    'flops_share': share(program.flops, ours, ceilings['matmul_flops_per_second']),
    'bytes_share': share(program.bytes_accessed, ours, ceilings['copy_bytes_per_second']),
  }
  if settings.vs:
    by_round = timing.ratios(seconds[OURS], seconds[peer])
    result['peer'] = {
      'name': peer,
      'seconds': spread[peer],
      'rounds': seconds[peer],
      'ratios': by_round,
      'ratio': timing.Spread.of(by_round),
      'variants': trials,
    }
  return result


def _chosen(variants: Sequence[case.Variant], text: str) -> Sequence[case.Variant]:
  """The variants whose names contain `text`."""
  chosen = [variant for variant in variants if text in variant.name]
  if text and not chosen:
    names = '; '.join(variant.name for variant in variants)
    raise ConfigError(f'--variants {text}: no variant of the peer has this in its name: {names}')
  return chosen


def share(amount: float | None, seconds: float, ceiling: float) -> float | None:
  """Rate `amount / seconds` as a share of a ceiling per second; None if the amount is unknown."""
  return None if amount is None else amount / seconds / ceiling


def run(settings: Settings) -> dict:
  """Runs a benchmark, and returns its record: plain values, spreads and dataclasses.

  Raises:
    UserError: the benchmark cannot run with these settings.
  """
  record = {'bench': settings.name, 'settings': settings, 'machine': machine.describe()}
  if settings.name == 'startup':
    from step_jax.bench import startup

    return {**record, 'found': startup.measure(settings)}
  if settings.name == 'input_pipeline':
    from step_jax.bench import input_pipeline

    program, rates = input_pipeline.measure(settings)
    return {**record, 'program': program, 'found': rates}
  exact = benches()[settings.name].exact
  _set_precision(settings, exact)
  cases = [measure_case(settings, benchmark, exact) for benchmark in _cases(settings)]
  if settings.memory:
    names = [memory.OURS, *(case['peer']['name'] for case in cases if 'peer' in case)]
    record['memory'] = memory.peaks(settings, names)
  return {**record, 'cases': cases}


def _set_precision(settings: Settings, exact: bool) -> None:
  """Sets the same precision of float32 products on both sides."""
  import jax

  if not settings.tf32:
    jax.config.update('jax_default_matmul_precision', 'highest')
  if settings.vs:
    if jax.device_count() > 1:
      raise RunError(
        f'--vs {settings.vs}: needs exactly one device, but there are {jax.device_count()}: '
        'select one (CUDA_VISIBLE_DEVICES=0)'
      )
  if settings.vs == 'torch':
    try:
      from step_jax.bench.ports import running
    except ModuleNotFoundError as error:
      raise RunError(f"--vs torch: {error.name} is missing: pip install -e '.[bench]'") from None
    running.set_precision(settings.tf32 and not exact)


def _cases(settings: Settings) -> Sequence[case.Case]:
  from step_jax import methods

  method = next(method for method in methods.METHODS.values() if settings.name in method.benches)
  return method.hook('cases').cases(settings)
