"""Saved and restored states are equal."""

import jax
import numpy as np

from step_jax.train import checkpoint, mesh


def test_arrays_without_entries(tmp_path):
  """A run without styles has codes of length zero, so its heads have no entries."""
  sharding = mesh.replicated(mesh.make_mesh())
  state = {'params': {'bias': np.zeros((0,)), 'kernel': np.zeros((4, 0)), 'full': np.arange(3.0)}}
  state = jax.device_put(jax.tree.map(np.float32, state), sharding)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, state)
  checkpoints.close()
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state
  )
  found = checkpoint.Checkpoints(tmp_path, create=False).restore(like)
  jax.tree.map(np.testing.assert_array_equal, found, state)
