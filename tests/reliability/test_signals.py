"""SIGTERM and SIGINT: the current step is saved, and the exit status shows the reason."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from step_jax import main
from step_jax.errors import Preempted
from step_jax.train import stopping, writers

ROOT = pathlib.Path(__file__).parents[2]


def send(number, at):
  def hook(step):
    # The batch is read before the step: that of step 6 has the number 5.
    if step == at - 1:
      signal.raise_signal(number)

  return hook


@pytest.mark.parametrize(
  ('number', 'status', 'told'),
  [(signal.SIGTERM, 75, 'step 7 is saved'), (signal.SIGINT, 130, 'interrupted')],
)
def test_the_current_step_is_saved(number, status, told, tmp_path, monkeypatch, capfd, whole):
  handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  monkeypatch.setattr(toy, 'hook', send(number, at=7))
  assert main.guarded(lambda: toy.train(tmp_path)) == status
  err = capfd.readouterr().err
  assert told in err and 'stopping after this step' in err and 'Traceback' not in err
  assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  assert toy.final(tmp_path / 'toy')[0] == 7
  monkeypatch.undo()
  assert toy.final(toy.train(tmp_path))[0] == 10
  assert np.array_equal(toy.final(tmp_path / 'toy')[1], whole)
  rows = writers.read_metrics(tmp_path / 'toy')
  assert [row['step'] for row in rows if 'loss' in row] == [*range(1, 11)]


def test_a_due_evaluation_is_not_skipped(tmp_path, monkeypatch):
  """It selects the best checkpoint, and its step is not repeated after a restart."""
  monkeypatch.setattr(toy, 'hook', send(signal.SIGTERM, at=8))
  with pytest.raises(Preempted):
    toy.train(tmp_path)
  rows = writers.read_metrics(tmp_path / 'toy')
  assert [row['step'] for row in rows if 'score' in row] == [4, 8]


def test_a_signal_in_the_last_step_saves_it(tmp_path, monkeypatch):
  monkeypatch.setattr(toy, 'hook', send(signal.SIGTERM, at=10))
  with pytest.raises(Preempted, match='step 10 is saved'):
    toy.train(tmp_path)
  assert toy.final(tmp_path / 'toy')[0] == 10


def test_ignored_signals_stay_ignored(tmp_path, monkeypatch):
  """For example under nohup, or in the background of a script."""
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    monkeypatch.setattr(toy, 'hook', send(signal.SIGINT, at=3))
    assert toy.final(toy.train(tmp_path))[0] == 10
  finally:
    signal.signal(signal.SIGINT, before)


_TWICE = """
import os, signal, sys
from step_jax.train import stopping
with stopping.Stop() as stop:
  os.kill(os.getpid(), signal.SIGTERM)
  assert stop.now(1)
  os.kill(os.getpid(), getattr(signal, sys.argv[1]))
  print('lived on', flush=True)
"""


@pytest.mark.parametrize(('second', 'status'), [('SIGTERM', 143), ('SIGINT', 130)])
def test_the_second_stops_at_once(second, status):
  done = subprocess.run(
    [sys.executable, '-c', _TWICE, second], capture_output=True, text=True, cwd=ROOT, timeout=120
  )
  assert (done.returncode, done.stdout) == (status, ''), done.stderr
  assert 'stopped immediately' in done.stderr


# One of two hosts, slow enough to receive the signal during training.
_HOST = """
import sys, time
sys.path[:0] = ['tests', 'tests/reliability']
import jax
from step_jax import main
import toy
port, index, workdir = sys.argv[1:]
jax.distributed.initialize(f'localhost:{port}', 2, int(index))
def hook(step):
  if step == 3:
    print('started', flush=True)
  time.sleep(0.05)
toy.hook = hook
sys.exit(main.guarded(lambda: toy.train(workdir, **{'schedule.total_kimg': 1e6})))
"""


@pytest.mark.parametrize(
  'number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_all_hosts_stop_at_one_step(number, tmp_path):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  hosts = [
    subprocess.Popen(
      [sys.executable, '-c', _HOST, str(port), str(index), str(tmp_path / 'run')],
      stdout=subprocess.PIPE, stderr=(tmp_path / f'{index}').open('w'), text=True, cwd=ROOT,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )
    for index in range(2)
  ]  # fmt: skip
  try:
    # Gloo writes to standard output too.
    started = ['started\n' in iter(host.stdout.readline, '') for host in hosts]
    hosts[1].send_signal(number)
    for host in hosts:
      host.communicate(timeout=120)
  finally:
    for host in hosts:
      host.kill()
  errors = [(tmp_path / f'{index}').read_text()[-3000:] for index in range(2)]
  assert all(started), errors
  # The host that received Ctrl-C reports it; the other one reports a pre-emption.
  assert hosts[0].returncode == 75, errors
  assert hosts[1].returncode == (75 if number == signal.SIGTERM else 130), errors
  step, _ = toy.final(tmp_path / 'run/toy')
  assert f'stopped by SIGTERM; step {step} is saved' in errors[0]
  assert f'step {step}/' in errors[1] and f'step {step + 1}/' not in errors[1]


def test_signals_are_not_handled_outside_of_the_main_thread(monkeypatch):
  import threading

  seen = []
  before = signal.getsignal(signal.SIGTERM)

  def work():
    with stopping.Stop() as stop:
      seen.append((signal.getsignal(signal.SIGTERM), stop.now(1)))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [(before, False)] and jax.process_count() == 1
