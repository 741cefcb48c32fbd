"""The error for a missing stage names a stage of the same method."""

import pytest

from step_jax import methods
from step_jax.errors import RunError
from step_jax.train import checkpoint


@pytest.mark.parametrize(
  'trained, wanted',
  [('stylegan2', 'psp'), ('pretrain', 'translate'), (None, 'translate, psp or superstylenet')],
)
def test_the_stage_to_train_is_one_of_the_method(trained, wanted, tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, 'exists', lambda folder: folder.name == trained)
  # A method may have no stage that translates; that one is not advised.
  drawing = methods.Method('drawing', '', (), translating=(), run='')
  monkeypatch.setitem(methods.METHODS, 'drawing', drawing)
  with pytest.raises(RunError, match=f'has no trained generator: train the stage {wanted} first'):
    methods.find(tmp_path)
