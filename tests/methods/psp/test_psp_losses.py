"""Loss terms and presets of pSp against the reference."""

import json

import golden_vectors as golden
import numpy as np
import psp_vectors
import pytest

from step_jax import config as config_lib
from step_jax.methods.psp import losses

TASKS = {
  'encode': 'ffhq_encode',
  'frontalize': 'ffhq_frontalize',
  'sketch': 'celebs_sketch_to_face',
  'segmentation': 'celebs_seg_to_face',
  'super_resolution': 'celebs_super_resolution',
  'toonify': 'toonify(readme text)',
}
NAMES = {'identity': 'id'}


def test_squared_errors_and_distances_of_styles():
  vectors = psp_vectors.load('18_losses_misc')
  output, target = vectors['y_hat_nhwc'], vectors['y_nhwc']
  golden.assert_close(losses.squared_error(output, target), vectors['l2'])
  inner = [losses.face_crop(x) for x in (output, target)]
  assert inner[0].shape == (2, 188, 188, 3)
  golden.assert_close(losses.squared_error(*inner), vectors['l2_crop'])
  found = losses.w_norm(vectors['latents'], vectors['latent_avg'])
  golden.assert_close(found, vectors['w_norm_from_avg'])
  golden.assert_close(losses.w_norm(vectors['latents']), vectors['w_norm_no_avg'])


@pytest.mark.parametrize('preset', TASKS)
def test_weights_of_the_tasks(preset):
  vectors = psp_vectors.load('18_losses_misc')
  meta = json.loads(str(vectors['meta']))
  loss = config_lib.load(f'{config_lib.stage_file("psp")}:,preset={preset}').loss
  weights = {NAMES.get(name, name): weight for name, weight in loss.items() if weight}
  assert weights == meta['tasks'][TASKS[preset]]
  total = sum(weight * meta['parts'][name] for name, weight in weights.items())
  index = list(meta['tasks']).index(TASKS[preset])
  np.testing.assert_allclose(total, vectors['task_totals'][index], rtol=1e-6)


def test_masked_difference():
  output, target = np.ones((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
  output[0, 0, 0] = 3
  mask = np.zeros((1, 2, 2, 1), np.float32)
  assert losses.masked_l1(output, target, mask) == 0
  mask[0, 0] = 1
  np.testing.assert_allclose(losses.masked_l1(output, target, mask), 2)
