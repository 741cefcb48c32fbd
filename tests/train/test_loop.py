"""The training loop: intervals, averages, stopping and output."""

import itertools
import json
import types

import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.errors import RunError
from step_jax.train import checkpoint, loop, writers


class State(flax.struct.PyTreeNode):
  step: int
  value: float


class FakeCheckpoints:
  def __init__(self):
    self.saved = {}

  @property
  def latest(self):
    return max(self.saved, default=None)

  def save(self, step, state, metrics=None):
    assert int(state.step) == step
    self.saved[step] = metrics


class FakeWriter:
  def __init__(self):
    self.rows, self.images, self.flushes = [], [], 0

  def write_scalars(self, step, scalars):
    self.rows.append((step, dict(scalars)))

  def write_images(self, step, images):
    self.images.append((step, list(images)))

  def flush(self):
    self.flushes += 1


def run(num_steps=10, start=0, bad_step=None, evaluate=True, **every):
  checkpoints, writer, seen = FakeCheckpoints(), FakeWriter(), []

  def train_step(state, batch):
    seen.append(batch)
    value = np.nan if state.step + 1 == bad_step else float(batch)
    metrics = {'loss': jnp.float32(value), 'steady': jnp.float32(1.0)}
    return State(state.step + 1, state.value + batch), metrics

  def score(state):
    return loop.Evaluation(
      {'val_loss': float(state.value)}, {'grid': np.zeros((1, 1, 3), np.uint8)}
    )

  settings = {'log': 3, 'checkpoint': 4, 'evaluate': 5, **every}
  final = loop.run(
    State(start, 0.0), train_step, itertools.count(start), num_steps, loop.Every(**settings),
    checkpoints, writer, score if evaluate else None, 8,
  )  # fmt: skip
  return types.SimpleNamespace(final=final, saved=checkpoints.saved, writer=writer, seen=seen)


def test_everything_runs_at_its_interval():
  done = run()
  assert int(done.final.step) == 10 and done.seen == list(range(10))
  assert sorted(done.saved) == [4, 5, 8, 10]
  assert {step for step, metrics in done.saved.items() if metrics} == {5, 10}
  logged = [(step, row['loss']) for step, row in done.writer.rows if 'loss' in row]
  # Each row is the mean over the steps since the last one.
  assert logged == [(3, 1.0), (4, 3.0), (5, 4.0), (6, 5.0), (8, 6.5), (9, 8.0), (10, 9.0)]
  assert [step for step, row in done.writer.rows if 'val_loss' in row] == [5, 10]
  assert done.writer.images == [(5, ['grid']), (10, ['grid'])]
  assert all('images_per_second' in row for _, row in done.writer.rows if 'loss' in row)


def test_the_memory_of_compilation_is_returned_once(monkeypatch):
  calls = []
  monkeypatch.setattr(loop.machine, 'return_free_memory', lambda: calls.append(None))
  run(start=4)
  assert len(calls) == 1


def test_resuming_in_the_middle():
  done = run(start=7)
  assert done.seen == [7, 8, 9] and sorted(done.saved) == [8, 10]


def test_without_evaluation():
  done = run(evaluate=False)
  assert sorted(done.saved) == [4, 8, 10] and not done.writer.images


@pytest.mark.parametrize(('bad', 'kept'), [(2, None), (6, 5), (7, 5), (10, 8)])
def test_a_loss_that_is_not_finite_stops_at_its_step(bad, kept):
  message = f'checkpoint of step {kept} is kept' if kept else 'no checkpoint was saved'
  with pytest.raises(RunError, match=f'loss became nan at step {bad}; .*{message}'):
    run(bad_step=bad)


def test_families_are_written_but_not_logged_and_losses_are_blamed_first(caplog):
  def train_step(state, batch):
    value = jnp.float32(np.nan if state.step + 1 == 3 else 1)
    return State(state.step + 1, 0.0), {'grad_norm/net': 2 * value, 'loss': value}

  writer = FakeWriter()
  with caplog.at_level('INFO'), pytest.raises(RunError, match='loss became nan at step 3'):
    loop.run(
      State(0, 0.0), train_step, itertools.count(), 5, loop.Every(1, 100, 100),
      FakeCheckpoints(), writer, None, 1,
    )  # fmt: skip
  assert [row['grad_norm/net'] for _, row in writer.rows] == [2, 2]
  assert 'loss 1' in caplog.text and 'grad_norm' not in caplog.text


def test_nothing_bad_is_saved():
  checkpoints = FakeCheckpoints()

  def train_step(state, batch):
    value = jnp.float32(np.inf if state.step + 1 >= 6 else 0)
    return State(state.step + 1, 0.0), {'loss': value}

  with pytest.raises(RunError, match='loss became inf at step 6'):
    loop.run(
      State(0, 0.0), train_step, itertools.count(), 20, loop.Every(100, 4, 100),
      checkpoints, None, None, 1,
    )  # fmt: skip
  assert sorted(checkpoints.saved) == [4]


def test_rows_beyond_the_checkpoint_are_dropped(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  for step in range(1, 6):
    writer.write_scalars(step, {'loss': step})
  writer.close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "lo')  # Killed while writing a line.
  assert [row['step'] for row in writers.read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
  writer = writers.MetricWriter(tmp_path, start=3)
  writer.write_scalars(4, {'loss': 40})
  writer.close()
  assert [row['loss'] for row in writers.read_metrics(tmp_path)] == [1, 2, 3, 40]
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert all(json.loads(line) for line in lines)


def test_pictures_are_written_whole(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  writer.write_images(12, {'styles': np.zeros((4, 4, 3), np.uint8)})
  writer.close()
  assert [p.name for p in (tmp_path / 'samples').iterdir()] == ['styles_00000012.png']


def like(state):
  import jax

  from step_jax.train import mesh

  sharding = mesh.replicated(mesh.make_mesh())
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def state_at(step):
  return {'step': jnp.int32(step), 'params': {'net': {'w': jnp.full((3, 2), float(step))}}}


def test_latest_and_best_are_kept(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, 'score')
  for step, score in ((1, 3.0), (2, None), (3, 1.0), (4, 2.0), (5, None), (6, None)):
    checkpoints.save(step, state_at(step), {'score': score} if score else None)
  checkpoints.close()
  kept = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
  assert kept == [3, 5, 6]
  checkpoints = checkpoint.Checkpoints(tmp_path, 'score', create=False)
  assert (checkpoints.latest, checkpoints.best) == (6, 3)
  assert checkpoints.names() == {'net'}
  restored = checkpoints.restore(like(state_at(0)))
  np.testing.assert_array_equal(restored['params']['net']['w'], np.full((3, 2), 6.0))
  part = checkpoints.restore({'params': like(state_at(0))['params']}, step=3)
  np.testing.assert_array_equal(part['params']['net']['w'], np.full((3, 2), 3.0))


def test_mismatches_with_a_checkpoint_are_named(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, state_at(1))
  checkpoints.close()
  checkpoints = checkpoint.Checkpoints(tmp_path, create=False)
  with pytest.raises(RunError, match=r'params/net/w is \(3, 2\), but \(3, 5\) was expected'):
    checkpoints.restore(like({'params': {'net': {'w': jnp.zeros((3, 5))}}}))
  with pytest.raises(RunError, match=r'params/other/w is not there'):
    checkpoints.restore(like({'params': {'other': {'w': jnp.zeros((3, 5))}}}))


def test_an_empty_folder_has_no_checkpoint(tmp_path):
  assert not checkpoint.exists(tmp_path)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  with pytest.raises(RunError, match='has no checkpoint'):
    checkpoints.restore(like(state_at(0)))
