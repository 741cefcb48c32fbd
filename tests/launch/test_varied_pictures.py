"""The varied set: what does not need the photographs of other packages."""

import pathlib
import runpy

import numpy as np
from PIL import Image
import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / 'launch' / 'varied_pictures.py'


@pytest.fixture(scope='module')
def script():
  return runpy.run_path(str(SCRIPT))


def test_images_are_varied_and_depend_on_the_seed_alone(script):
  shades = np.linspace(0, 255, 90 * 120 * 3).reshape(90, 120, 3).astype(np.uint8)
  photographs = [Image.fromarray(shades)]
  draw = lambda seed: script['draw'](np.random.default_rng(seed), photographs, 32)
  images = np.stack([draw(seed) for seed in range(40)])
  assert images.shape == (40, 32, 32, 3) and images.dtype == np.uint8
  np.testing.assert_array_equal(draw(7), images[7])
  means = images.reshape(40, -1, 3).mean(axis=1)
  assert (means.std(axis=0) > 20).all() and len(np.unique(means, axis=0)) == 40


def test_validation_has_other_photographs(script):
  for package, names in script['HELD_OUT'].items():
    assert not set(names) & set(script['PHOTOGRAPHS'][package])
