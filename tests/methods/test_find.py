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
  # A method without a stage that translates is not suggested.
  drawing = methods.Method('drawing', '', (), translating=(), run='')
  monkeypatch.setitem(methods.METHODS, 'drawing', drawing)
  with pytest.raises(RunError, match=f'has no trained generator: train the stage {wanted} first'):
    methods.find(tmp_path)
