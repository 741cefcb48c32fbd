"""What many tests share: folders of their own, a small folder of pictures, a trained run."""

import logging
import os
import pathlib
import sys

# Helpers that tests import stand beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import numpy as np
from PIL import Image
import pytest


@pytest.fixture(scope='session', autouse=True)
def own_folders(tmp_path_factory):
  """No test reads or writes the user's cache and weights; processes that tests start neither."""
  os.environ['STEP_JAX_CACHE'] = str(tmp_path_factory.mktemp('cache'))
  os.environ['STEP_JAX_WEIGHTS'] = str(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='session')
def picture_folder(tmp_path_factory):
  """24 training and 5 validation pairs, side by side, 16 px high, 20 wide a half."""
  from step_jax.data import swatches

  folder = tmp_path_factory.mktemp('pictures')
  for split, count in (('train', 24), ('val', 5)):
    (folder / split).mkdir()
    for i in range(count):
      pair = swatches.render(f'{split}/{i}', 20)
      image = np.concatenate([pair['A'], pair['B']], axis=1)[:16]
      Image.fromarray(image).save(folder / split / f'{i:02d}.png')
  return folder


@pytest.fixture(scope='session')
def trained_run(picture_folder, tmp_path_factory):
  """All four stages, a few steps each.

  The run's folder, and the fields that were read on the way.
  """
  import tiny

  # As commands do; else what is in the logs depends on which tests ran before.
  logging.getLogger('step_jax').setLevel(logging.INFO)
  workdir = tmp_path_factory.mktemp('run')
  with tiny.record_fields() as read:
    for stage in tiny.STAGES:
      tiny.train(stage, picture_folder, workdir)
    from step_jax.evaluate import results

    results.evaluate(workdir)
  return workdir, read
