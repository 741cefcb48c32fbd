"""Randomly damaged small files of every format give a valid value or a one-line error."""

import collections
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import mutations
import pytest
from targets import TARGETS, Bench

from step_jax import config as config_lib
from step_jax.errors import ConfigError

HERE = pathlib.Path(__file__).parent
LONG_FACTOR = 100
ATHERIS_RUNS = 20_000


def fuzz(name: str, examples: int, derandomize: bool) -> collections.Counter:
  """Reads damaged files of a format; returns the numbers of accepted and refused ones."""
  bench = Bench(name)
  tally = collections.Counter()

  @hypothesis.settings(
    max_examples=examples,
    derandomize=derandomize,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(mutations.changes)
  def read(changes):
    taken = bench.survives(mutations.damaged(bench.whole, changes))
    tally['taken' if taken else 'refused'] += 1

  try:
    read()
  finally:
    bench.close()
  return tally


@pytest.mark.parametrize('name', TARGETS)
def test_damaged_files_are_read_or_refused(name):
  tally = fuzz(name, TARGETS[name].examples, derandomize=True)
  assert tally['refused'] or name == 'metrics.jsonl' or name == 'record'


@pytest.mark.long
def test_many_damaged_files_are_read_or_refused(capsys):
  """Different files in each run; the seed of a failure is printed."""
  for name, target in TARGETS.items():
    tally = fuzz(name, LONG_FACTOR * target.examples, derandomize=False)
    with capsys.disabled():
      print(f'\nfuzz: | {name} | {sum(tally.values())} | {tally["taken"]} | {tally["refused"]} |')


def _settings(examples: int, derandomize: bool):
  @hypothesis.settings(max_examples=examples, derandomize=derandomize, deadline=None, database=None)
  @hypothesis.given(
    st.sampled_from(['batch_size', 'schedule.total_kimg', 'data.flip', 'data.crop', 'stage', 'x']),
    st.one_of(st.text(), st.text('()[]{},.:-+*"\'\\ 0123456789eEjJtruefals_xX\n', max_size=60)),
  )
  def check(field, text):
    config = config_lib.load(config_lib.stage_file('translate') + ':facades')
    old = dict(config_lib.flatten(config))
    try:
      config_lib.set_field(config, field, text)
    except ConfigError:
      assert dict(config_lib.flatten(config)) == old
    else:
      assert type(dict(config_lib.flatten(config))[field]) is type(old[field])
    try:
      config_lib.Options.parse(text)
    except ConfigError as error:
      assert len(str(error).splitlines()) == 1

  check()


def test_settings_are_values_or_refused():
  _settings(75, derandomize=True)


@pytest.mark.long
def test_many_settings_are_values_or_refused():
  _settings(75 * LONG_FACTOR, derandomize=False)


@pytest.mark.long
@pytest.mark.skipif(
  importlib.util.find_spec('atheris') is None, reason="atheris is not there: pip install '.[fuzz]'"
)
@pytest.mark.parametrize('name', [name for name in TARGETS if name not in ('h5',)])
def test_fuzzing_guided_by_coverage_finds_nothing(name, tmp_path, capsys):
  """libFuzzer follows the branches of our readers and of the functions that they call."""
  runs = subprocess.run(
    [sys.executable, HERE / 'fuzz_readers.py', name, tmp_path, f'-runs={ATHERIS_RUNS}',
     '-max_len=20000', '-seed=1', f'-artifact_prefix={tmp_path}/', '-rss_limit_mb=4096'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True,
  )  # fmt: skip
  assert runs.returncode == 0, runs.stderr[-3000:]
  done = re.search(r'Done (\d+) runs', runs.stderr)
  assert int(done[1]) >= ATHERIS_RUNS
  with capsys.disabled():
    print(f'\natheris: | {name} | {done[1]} |')
