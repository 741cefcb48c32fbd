"""Timing functions with a fake clock."""

import pytest

from step_jax.bench import case, input_pipeline, measure, startup, timing
from step_jax.bench.settings import Settings


class Clock:
  """A clock that advances only when work is done."""

  def __init__(self):
    self.now = 0.0
    self.log = []

  def __call__(self):
    return self.now

  def work(self, name, *seconds):
    """Workload whose calls take the given seconds in order; the last value repeats."""
    left = list(seconds)

    def work(calls):
      for _ in range(calls):
        self.now += left.pop(0) if len(left) > 1 else left[0]
        self.log.append(name)

    return work


def test_quartiles():
  assert timing.Spread.of([4.0, 1.0, 3.0, 2.0]) == timing.Spread(2.5, 1.75, 3.25)
  assert timing.Spread.of([7.0]) == timing.Spread(7.0, 7.0, 7.0)


def test_the_first_calls_do_not_count():
  clock = Clock()
  seconds = timing.in_turn({'a': clock.work('a', 100.0, 50.0, 1.0, 2.0)}, 2, clock=clock)
  assert seconds == {'a': [1.0, 2.0]}


def test_workloads_alternate_and_pairs_are_of_one_round():
  clock = Clock()
  works = {
    'a': clock.work('a', 9.0, 9.0, 1.0, 2.0, 3.0),
    'b': clock.work('b', 9.0, 9.0, 4.0, 4.0, 12.0),
  }
  seconds = timing.in_turn(works, 3, clock=clock)
  assert ''.join(clock.log) == 'aabb' + 'ab' * 3
  assert timing.ratios(seconds['a'], seconds['b']) == [0.25, 0.5, 0.25]
  with pytest.raises(ValueError):
    timing.ratios([1.0], [1.0, 2.0])


def test_short_work_is_measured_many_times_in_one():
  clock = Clock()
  works = {'short': clock.work('s', 0.25), 'long': clock.work('l', 8.0)}
  seconds = timing.in_turn(works, 1, at_least=1.0, clock=clock)
  assert ''.join(clock.log) == 'ss' + 'll' + 'ssss' + 'l'
  assert seconds == {'short': [0.25], 'long': [8.0]}


def test_the_fastest_variant_that_runs_is_kept():
  clock = Clock()

  def fail():
    raise ImportError('no such package\nand more')

  # The second variant is the fastest once it is warm.
  variants = [
    case.Variant('slow', lambda: clock.work('slow', 3.0)),
    case.Variant('broken', fail),
    case.Variant('fast', lambda: clock.work('fast', 30.0, 30.0, 1.0)),
    case.Variant('middling', lambda: clock.work('middling', 2.0)),
  ]
  trials, work, name = measure.try_variants(variants, clock=clock)
  assert name == 'fast'
  assert trials == [
    measure.Trial('slow', 3.0),
    measure.Trial('broken', None, 'no such package'),
    measure.Trial('fast', 1.0),
    measure.Trial('middling', 2.0),
  ]
  clock.log.clear()
  work(2)
  assert clock.log == ['fast', 'fast']
  assert measure.try_variants([case.Variant('broken', fail)])[1:] == (None, '')


def test_share_of_a_ceiling():
  assert measure.share(6.0, 2.0, 10.0) == pytest.approx(0.3)
  assert measure.share(None, 2.0, 10.0) is None


def test_the_pipeline_is_timed_without_what_was_buffered():
  clock, cpu = Clock(), Clock()

  def batches():
    for i in range(1000):
      clock.now += 100.0 if i < 5 else 0.5
      cpu.now += 100.0 if i < 5 else 1.0
      yield {}

  rates = input_pipeline.throughput(batches(), 4, count=10, clock=clock, cpu_clock=cpu)
  assert rates == (8.0, 4.0)


def test_prefetched_batches_do_not_hide_a_slow_pipeline():
  asked = []

  def batches():
    for i in range(10_000):
      asked.append(i)
      yield i

  seen = []
  step = lambda state, batch, frozen: (seen.append(batch), (state, {}))[1]
  loops = input_pipeline.Loops(step, 0.0, batches(), None, lambda batch: batch)
  seconds = loops.in_turn(2, calls=3)
  assert {name: len(taken) for name, taken in seconds.items()} == dict(fed=2, resident=2, asking=2)
  ahead = input_pipeline._FILLING
  first, second = 1 + ahead, 1 + 2 * ahead + 4
  resident = [0, 0, 0]
  assert seen == [
    0, 0, *range(first, first + 4), *resident, *range(second, second + 4), *resident,
  ]  # fmt: skip
  # More than the eight batches that the pipeline buffers and those its threads are working on.
  assert ahead > 8
  assert all(asking <= fed for asking, fed in zip(seconds['asking'], seconds['fed'], strict=True))


def test_wait_share_is_what_a_fed_step_takes_longer():
  assert input_pipeline.wait_share([2.0, 4.0, 1.0], [1.0, 3.0, 1.0]).median == pytest.approx(0.25)


def test_starts_share_a_cache_in_pairs(tmp_path):
  seen = []

  def spawn(settings, folder, cache):
    seen.append((cache, sorted(path.name for path in cache.iterdir())))
    (cache / 'program').touch()
    return {'first_step': float(len(seen)), 'compiled': 3 if len(seen) % 2 else 0}

  settings = Settings.of('startup', repeats=2, data=str(tmp_path))
  found = startup.measure(settings, spawn)
  assert [held for _, held in seen] == [[], ['program'], [], ['program']]
  assert seen[0][0] == seen[1][0] != seen[2][0]
  assert found['cold_first_step'].median == 2.0 and found['warm_first_step'].median == 3.0
  assert found['cold_compiled'].median == 3.0 and found['warm_compiled'].median == 0.0
