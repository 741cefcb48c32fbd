"""Networks from published checkpoints compute the same as the original."""

from pathlib import Path
import sys

import jax
import numpy as np
import pytest
import ssn_vectors
from test_ssn_networks import GENERATOR, close, trees_close

from step_jax.errors import RunError, WeightsError
from step_jax.methods.superstylenet import (
  extraction,
  import_run,
  import_weights,
  networks,
  torch_state,
)
from step_jax.methods.superstylenet import run as run_lib

sys.path.insert(0, str(Path(__file__).parents[2] / 'weights'))
import weight_files as files  # noqa: E402


def published(name):
  """A published state dict, including unused arrays."""
  vectors = ssn_vectors.load(name)
  state = ssn_vectors.part(vectors, 'p:')
  if name == 'torch_generator':
    for norm in [key.removesuffix('noise_var') for key in state if key.endswith('noise_var')]:
      state[f'{norm}param_free_norm.num_batches_tracked'] = np.array(3.0, np.float32)
      state[f'{norm}Spade.param_free_norm.running_mean'] = np.ones(4, np.float32)
      state[f'{norm}Gsas.fc.weight'] = np.ones((16, 32), np.float32)
      state[f'{norm}fc_mu18.weight'] = np.full((16, 16), 7, np.float32)
  return vectors, state


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_generator(prefix, tmp_path):
  vectors, state = published('torch_generator')
  state = {prefix + name: array for name, array in state.items()}
  found = import_weights.load_generator(files.torch_save(tmp_path / '50_net_G.pth', state))
  module = found.module
  assert (module.num_labels, module.style_size, module.width, module.spade_width) == (5, 16, 2, 128)
  # `test_ssn_networks` shows that these draw what the original draws.
  params, stats = torch_state.generator(ssn_vectors.part(vectors, 'p:'))
  assert module == GENERATOR.clone(label_width=16)
  trees_close(found.variables, {'params': params, **stats}, 0)


def test_discriminator(tmp_path):
  vectors, state = published('torch_disc')
  found = import_weights.load_discriminator(files.torch_save(tmp_path / '50_net_D.pth', state))
  assert (found.module.num_labels, found.module.width) == (5, 4)
  labels = np.tile(vectors['label'], (2, 1, 1))
  scales = found.module.apply(found.variables, labels, vectors['x'][..., 5:])
  close(scales[1][3], vectors['eval:1_3'])


def test_a_run_from_published_files(tmp_path, monkeypatch):
  for module in (extraction, import_run, networks, run_lib):
    # The vectors have short codes.
    monkeypatch.setattr(module, 'CODE_SIZE', 16)
  vectors, state = published('torch_generator')
  paths = [
    files.torch_save(tmp_path / '50_net_G.pth', state),
    files.torch_save(tmp_path / '50_net_D.pth', published('torch_disc')[1]),
  ]
  with pytest.raises(WeightsError, match='has 5 labels, not 19: set --classes'):
    import_run.import_run(paths, tmp_path / 'run', classes=19)
  folder = import_run.import_run(paths, tmp_path / 'run', classes=5)
  run = run_lib.load(folder)
  assert run.step == 0 and run.config.model.discriminator_width == 4 and not run.mean.valid.any()
  generator = import_weights.load_generator(paths[0])
  jax.tree.map(np.testing.assert_array_equal, run.params, generator.variables)
  with pytest.raises(RunError, match='is already trained'):
    import_run.import_run(paths, tmp_path / 'run')


def test_files_of_other_networks_are_refused(tmp_path):
  _, state = published('torch_disc')
  save = lambda changes: files.torch_save(tmp_path / 'x.pth', state | changes)
  with pytest.raises(WeightsError, match=r'x.pth: the state dict lacks fc.weight; give a complete'):
    import_weights.load_generator(save({}))
  wrong = {'discriminator_1.model0.0.weight': np.ones((4, 9, 4, 4), np.float32)}
  with pytest.raises(WeightsError, match=r'scale_1/conv_0/kernel is \(4, 4, 9, 4\), expected'):
    import_weights.load_discriminator(save(wrong))
  flat = {'discriminator_1.model0.0.weight': np.ones((4, 9), np.float32)}
  with pytest.raises(WeightsError, match='arrays of other shapes'):
    import_weights.load_discriminator(save(flat))
  broken = {'discriminator_1.model3.0.bias': np.array([np.nan], np.float32)}
  with pytest.raises(WeightsError, match='model3.0.bias that are not finite'):
    import_weights.load_discriminator(save(broken))
