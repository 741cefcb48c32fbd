"""Inputs of pSp's tasks against the reference."""

import golden_vectors as golden
import numpy as np
import psp_vectors
import pytest

from step_jax import images
from step_jax.errors import DataError
from step_jax.methods.psp import transforms


@pytest.mark.parametrize('factor', transforms.FACTORS)
def test_super_resolution(factor):
  vectors = psp_vectors.load('21_transforms')
  golden.assert_close(transforms.cubic_kernel(factor), vectors[f'bicubic_kernel_{factor}'], 1e-6)
  low = transforms.reduce(vectors['rgb256_u8'], factor)
  expected = vectors[f'sr_lowres_u8_{factor}'].astype(int)
  # For factor 1 the vectors hold every fourth pixel.
  stride = 4 if factor == 1 else 1
  difference = np.abs(low[::stride, ::stride] - expected)
  # Rounding in float32 moves a few values across a truncation boundary.
  assert difference.max() <= 1 and (difference > 0).mean() < 2e-3
  source = images.to_float(transforms.degrade(vectors['rgb256_u8'], factor))[None, ::8, ::8]
  off = np.abs(np.asarray(source) - vectors[f'sr_source_nhwc_sub8_{factor}'])
  assert off.max() <= 2.1 / 255 and (off > 1e-5).mean() < 5e-3


def test_resizing_and_label_maps():
  vectors = psp_vectors.load('21_transforms')
  resized = images.to_float(transforms.resize(vectors['rgb320_u8'], 256))[None, ::4, ::4]
  golden.assert_close(resized, vectors['encode_transform_320to256_nhwc_sub4'])
  labels = vectors['labels320_u8']
  np.testing.assert_array_equal(
    transforms.resize_labels(labels, 256), vectors['labels_256_nearest']
  )
  np.testing.assert_array_equal(
    transforms.resize_labels(labels, 256, interpolate=True),
    vectors['labels_256_bilinear_reference'],
  )
  transforms.check_labels(labels, 19, 'a.png')
  with pytest.raises(DataError, match='^a.png: has the class 18, but there are 18 classes'):
    transforms.check_labels(labels, 18, 'a.png')


def test_images_of_outputs_and_label_maps():
  vectors = psp_vectors.load('21_transforms')
  image = vectors['tensor2im_in_hwc']
  np.testing.assert_array_equal(images.to_uint8(image, truncate=True), vectors['tensor2im_out_u8'])
  rounded = np.asarray(images.to_uint8(image)).astype(int)
  assert set(np.unique(rounded - vectors['tensor2im_out_u8'])) == {0, 1}
  np.testing.assert_array_equal(transforms.PALETTE, vectors['palette19'])
  labels = vectors['tensor2map_in_chw'].argmax(axis=0)
  np.testing.assert_array_equal(transforms.colour_labels(labels), vectors['tensor2map_out_u8'])
