"""The loop transfers only batches to the devices, and only explicitly."""

import jax
import numpy as np
import pytest
import tiny

from step_jax.train import loop


@pytest.fixture
def guarded(monkeypatch):
  """Runs the loop with a guard that refuses implicit transfers."""
  run, calls = loop.run, []

  def run_guarded(*args, **kwargs):
    calls.append(args)
    with jax.transfer_guard_host_to_device('disallow'):
      return run(*args, **kwargs)

  monkeypatch.setattr(loop, 'run', run_guarded)
  return calls


@pytest.mark.parametrize('stage', ['pretrain', 'translate'])
def test_steps_and_evaluations_have_no_implicit_transfers(stage, guarded, picture_folder, tmp_path):
  tiny.train(stage, picture_folder, tmp_path, init_from='')
  assert len(guarded) == 1


def test_the_guard_sees_host_arrays():
  add = jax.jit(lambda x: x + 1)
  with jax.transfer_guard_host_to_device('disallow'), pytest.raises(Exception, match='Disallowed'):
    add(np.ones(3, np.float32))
