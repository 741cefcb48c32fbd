"""A bench from settings to record."""

from collections.abc import Callable, Sequence
import dataclasses
import gc
import logging

from step_jax.bench import case, machine, memory, timing
from step_jax.bench.settings import Settings, benches
from step_jax.errors import ConfigError, RunError

log = logging.getLogger(__name__)

# Rounds in which variants of a peer are tried.
_TRIALS = 3
OURS, MATMUL, COPY = memory.OURS, 'matmul', 'copy'


@dataclasses.dataclass(frozen=True)
class Trial:
  """What came of one variant of a peer.

  Attributes:
    name: of the variant.
    seconds: a call took, or None where it failed.
    failure: why.
  """

  name: str
  seconds: float | None
  failure: str = ''


def try_variants(
  variants: Sequence[case.Variant], rounds: int = _TRIALS, clock: Callable | None = None
) -> tuple[list[Trial], timing.Work | None, str]:
  """Runs each variant for a few rounds, and keeps the fastest.

  Args:
    variants: of one peer.
    rounds: that each is run; the median counts.
    clock: the time.

  Returns:
    All trials; the fastest one's work, ready and warm, and its name; None and '' where all failed.
  """
  clocks = {} if clock is None else {'clock': clock}
  trials, best, best_name, fastest = [], None, '', float('inf')
  for variant in variants:
    work = None
    try:
      work = variant.make()
      taken = timing.in_turn({'': work}, rounds, **clocks)['']
    # A variant that does not run here (no compiler, no such package) must not end the bench.
    except Exception as error:
      reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
      trials.append(Trial(variant.name, None, reason[:200]))
    else:
      seconds = timing.Spread.of(taken).median
      trials.append(Trial(variant.name, seconds))
      if seconds < fastest:
        best, best_name, fastest = work, variant.name, seconds
    log.info('%s: %s', variant.name, trials[-1].failure or f'{trials[-1].seconds:.4g} s')
    # Memory of the one before, which the next one may need.
    del work
    gc.collect()
  return trials, best, best_name


def measure_case(settings: Settings, benchmark: case.Case, exact: bool) -> dict:
  """One case's part of a record: ours, the best variant of the peer, and the ceilings, in turn.

  Args:
    settings: of the bench.
    benchmark: the case.
    exact: whether ours computes its products exactly, whatever the settings allow.

  Raises:
    RunError: a peer is asked for, and no variant of it runs.
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
  spread = {name: timing.Spread.of(taken) for name, taken in seconds.items()}
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
  """Those with a text in their name."""
  chosen = [variant for variant in variants if text in variant.name]
  if text and not chosen:
    names = '; '.join(variant.name for variant in variants)
    raise ConfigError(f'--variants {text}: the peer has none with this in its name: {names}')
  return chosen


def share(amount: float | None, seconds: float, ceiling: float) -> float | None:
  """Part of a ceiling (a second) that so much in so many seconds is; None where it is not known."""
  return None if amount is None else amount / seconds / ceiling


def run(settings: Settings) -> dict:
  """Measures, and returns the record: plain values, spreads and dataclasses.

  Raises:
    UserError: nothing can be measured as asked.
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
  """The same rule for float32 products on both sides."""
  import jax

  if not settings.tf32:
    jax.config.update('jax_default_matmul_precision', 'highest')
  if settings.vs:
    if jax.device_count() > 1:
      raise RunError(
        f'--vs {settings.vs}: compares one device with one, and there are {jax.device_count()}: '
        'show one alone (CUDA_VISIBLE_DEVICES=0)'
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
