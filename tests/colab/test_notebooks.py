"""Notebooks: their text, and execution from top to bottom at the smallest size."""

import base64
import io
import os
import pathlib
import re

import nbclient
from nbclient.exceptions import CellExecutionError
import nbformat
import numpy as np
from PIL import Image
import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
NAMES = ('train_step', 'explore_styles', 'explore_psp', 'explore_regions', 'tpu')
# Both runs of the first notebook have the same length, so that they share compiled programs.
SETTINGS = {
  'train_step': dict(SIZE=16, WIDTH=4, KIMG=0.032, EPOCHS=10, OWN_KIMG=0.032),
  'explore_styles': dict(COUNT=2, STEPS=2),
  'explore_psp': dict(COUNT=2, STEPS=2),
  'explore_regions': dict(COUNT=2, STEPS=2),
  'tpu': dict(SIZE=16, BATCH_SIZE=8, STEPS=2),
}
# Run with every test run; the others train a method, and run with --long.
SMOKE = ('explore_styles', 'explore_psp', 'explore_regions', 'tpu')
EXECUTED = [name if name in SMOKE else pytest.param(name, marks=pytest.mark.long) for name in NAMES]
# The number of images that each notebook displays.
PICTURES = {
  'train_step': 5, 'explore_styles': 6, 'explore_psp': 5, 'explore_regions': 5, 'tpu': 1
}  # fmt: skip
# After four steps the model has learnt nothing, and training must warn about it. These are results
# of the run (`step_jax.methods.step.scores.health`), not warnings about the code.
UNTRAINED = (
  'WARNING the style encoder has ',
  'WARNING the generator ignores the style ',
  'WARNING the discriminator wins: ',
)


def read(name):
  return nbformat.read(ROOT / f'colab/{name}.ipynb', as_version=nbformat.NO_CONVERT)


def code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_is_short_clean_and_open(name):
  notebook = read(name)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  assert len(notebook.cells) < 25
  assert notebook.cells[0].cell_type == 'markdown'
  for cell in code(notebook):
    assert cell.outputs == [] and cell.execution_count is None, cell.id
    # Code stays visible: not collapsed in Jupyter (metadata) or in Colab (forms).
    assert set(cell.metadata) <= {'tags'} and '#@' not in cell.source, cell.id
  assert any(re.search(r'^(import|from) step_jax', c.source, re.M) for c in code(notebook))


def test_links_point_to_files():
  for name in NAMES:
    texts = [cell.source for cell in read(name).cells if cell.cell_type == 'markdown']
    for target in re.findall(r'\]\(([^)]*)\)', '\n'.join(texts)):
      assert (ROOT / 'colab' / target).is_file(), f'{name}: {target}'


def execute(notebook, folder, **variables):
  """Executes a notebook in a folder, and fills in its outputs."""
  # With the variables of pytest set, kernels show less than they do for readers.
  env = {key: value for key, value in os.environ.items() if not key.startswith('PYTEST')}
  path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
  client = nbclient.NotebookClient(
    notebook, timeout=1200, kernel_name='python3', resources={'metadata': {'path': str(folder)}}
  )
  client.execute(env={**env, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu', **variables})


WITHOUT_STEP_JAX = """
import importlib.util
from IPython.core.magic import register_line_magic

importlib.util.find_spec = lambda name: None

@register_line_magic
def pip(line):
  print('pip', line)
"""


def install(folder, **variables):
  """Output of the install cell (equal in all notebooks) without step_jax installed."""
  cells = [[cell for cell in read(name).cells if 'install' in cell.id] for name in NAMES]
  assert all(other == cells[0] for other in cells)
  notebook = nbformat.v4.new_notebook()
  notebook.cells = [nbformat.v4.new_code_cell(WITHOUT_STEP_JAX), cells[0][1]]
  execute(notebook, folder, **variables)
  return ''.join(output.text for output in notebook.cells[-1].outputs)


def test_a_checkout_beside_the_notebook_is_installed_for_the_gpu(tmp_path):
  (tmp_path / 'clone/step_jax').mkdir(parents=True)
  (tmp_path / 'clone/step_jax/__init__.py').touch()
  (tmp_path / 'bin').mkdir()
  (tmp_path / 'bin/nvidia-smi').touch(mode=0o755)
  told = install(tmp_path, PATH=str(tmp_path / 'bin'))
  assert told == f'pip install -q {tmp_path}/clone[cuda]\n'


def test_a_notebook_alone_asks_for_a_checkout(tmp_path):
  (tmp_path / 'alone').mkdir()
  with pytest.raises(CellExecutionError, match='no checkout of step_jax above or next to'):
    install(tmp_path / 'alone')


@pytest.fixture(scope='module')
def executed(request, tmp_path_factory):
  """Executed notebooks, in `colab/` of a copy of this checkout."""
  every = request.config.getoption('--long')
  checkout = tmp_path_factory.mktemp('checkout')
  for part in ('step_jax', 'configs', 'launch'):
    (checkout / part).symlink_to(ROOT / part)
  (checkout / 'colab').mkdir()
  found = {}
  for name in NAMES if every else SMOKE:
    settings = SETTINGS[name]
    notebook = read(name)
    tags = [cell.metadata.get('tags', []) for cell in notebook.cells]
    at = tags.index(['parameters'])
    # Changes only existing lines, as a reader would.
    assert all(f'\n{field} = ' in f'\n{notebook.cells[at].source}' for field in settings)
    lines = '\n'.join(f'{field} = {value!r}' for field, value in settings.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(lines))
    execute(notebook, checkout / 'colab')
    found[name] = notebook
  return found


def text(output):
  return output.get('text') or str(output.get('data', {}).get('text/plain', ''))


@pytest.mark.parametrize('name', EXECUTED)
def test_outputs_have_no_warnings(executed, name):
  for cell in code(executed[name]):
    for output in cell.outputs:
      assert output.get('name') != 'stderr', f'{cell.id}: {text(output)}'
      lines = [line for line in text(output).splitlines() if not line.startswith(UNTRAINED)]
      bad = [line for line in lines if re.search('warn|deprecat|error|failed', line, re.I)]
      assert not bad, f'{cell.id}: {bad}'


@pytest.mark.parametrize('name', EXECUTED)
def test_outputs_have_images(executed, name):
  """Images must not have a single colour."""
  outputs = [output for cell in code(executed[name]) for output in cell.outputs]
  shown = [output.data['image/png'] for output in outputs if 'image/png' in output.get('data', {})]
  assert len(shown) == PICTURES[name]
  for encoded in shown:
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
      assert np.asarray(picture.convert('RGB')).std() > 5


def test_a_batch_is_shared_out_over_eight_devices(executed):
  (cell,) = (cell for cell in executed['tpu'].cells if cell.id == 'shards')
  told = ''.join(map(text, cell.outputs))
  assert len(re.findall(r'has \(1, 16, 16, 3\)', told)) == 8, told
