"""Training does not depend on the system clock, which may jump."""

import itertools
import time

import numpy as np
import toy

from step_jax.train import writers


def test_a_clock_that_runs_backwards_changes_nothing(tmp_path, monkeypatch, whole):
  now = time.time()
  jumps = itertools.count(1)
  monkeypatch.setattr(time, 'time', lambda: now - 3600 * next(jumps))
  toy.train(tmp_path, **{'schedule.total_kimg': 5.0})
  folder = toy.train(tmp_path)
  step, found = toy.final(folder)
  assert step == 10 and np.array_equal(found, whole)
  # The two latest and the best, by step and score, not by time.
  kept = sorted(int(path.name) for path in (folder / 'checkpoints').iterdir())
  rows = writers.read_metrics(folder)
  scores = {row['step']: row['score'] for row in rows if 'score' in row}
  assert kept == sorted({8, 10, min(scores, key=scores.get)})
  assert [row['step'] for row in rows if 'loss' in row] == [*range(1, 11)]
  assert all(row['images_per_second'] > 0 for row in rows if 'loss' in row)
