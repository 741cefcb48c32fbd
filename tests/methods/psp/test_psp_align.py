"""Alignment of faces from given landmarks."""

import numpy as np
import pytest

from step_jax.methods.psp import align


def landmarks(left=(40.0, 50.0), right=(60.0, 50.0), mouth=(50.0, 70.0)):
  points = np.zeros((68, 2))
  points[36:42], points[42:48] = left, right
  points[48], points[54] = np.subtract(mouth, (5, 0)), np.add(mouth, (5, 0))
  return points


def test_the_square_of_an_upright_face():
  """Half a side is twice the eye distance of 20 px; the center is just below the eyes."""
  corners = align.face_square(landmarks())
  np.testing.assert_allclose(corners, [[10, 12], [10, 92], [90, 92], [90, 12]], atol=1e-9)
  # A long face: the side is 1.8 times the distance from eyes to mouth.
  corners = align.face_square(landmarks(mouth=(50.0, 90.0)))
  np.testing.assert_allclose(corners[3] - corners[0], [144, 0], atol=1e-9)


def test_pixels_are_where_the_square_says():
  """An image whose channels are x and y, so that the output shows the sampled positions."""
  x, y = np.meshgrid(np.arange(120), np.arange(110))
  picture = np.stack([2 * x, 2 * y, 0 * x], axis=-1).astype(np.uint8)
  aligned = align.align(picture, landmarks(), size=80)
  assert aligned.shape == (80, 80, 3) and aligned.dtype == np.uint8
  np.testing.assert_allclose(aligned[0, 0, :2], (20, 24), atol=2)
  np.testing.assert_allclose(aligned[79, 79, :2], (178, 182), atol=2)
  # A face rotated by 90 degrees is cropped upright.
  points = landmarks()
  turned = np.stack([points[:, 1], 119 - points[:, 0]], axis=1)
  again = align.align(np.rot90(picture).copy(), turned, size=80)
  np.testing.assert_allclose(again.astype(int), aligned, atol=4)


def test_large_faces_are_shrunk_without_aliasing():
  x, y = np.meshgrid(np.arange(1200), np.arange(1100))
  checks = np.repeat((255 * ((x + y) % 2))[..., None], 3, axis=-1).astype(np.uint8)
  aligned = align.align(checks, 10 * landmarks(), size=64)
  np.testing.assert_allclose(aligned.astype(int), 128, atol=4)


def test_outside_of_the_image_is_its_reflection():
  picture = np.full((100, 70, 3), 90, np.uint8)
  picture[:, :35] = 200
  aligned = align.align(picture, landmarks(), size=80)
  # The right edge of the square is 20 px outside the image, whose border is constant there.
  np.testing.assert_array_equal(aligned[:, -5:], 90)
  with pytest.raises(ValueError, match='outside'):
    align.align(picture, landmarks() + 1000)


@pytest.mark.parametrize('points', [np.zeros((5, 2)), np.zeros((68, 2)), np.full((68, 2), np.nan)])
def test_landmarks_that_are_not_a_face_are_refused(points):
  with pytest.raises(ValueError, match='alignment'):
    align.face_square(points)
