"""The image of the style map, and the position of clicks on it."""

import numpy as np
import pytest

from step_jax.methods.step.page import codes, map_picture

pytest.importorskip('sklearn', reason="sklearn is missing: pip install -e '.[demo]'")
SIDE = map_picture.SIDE


@pytest.fixture(scope='module')
def known():
  return np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)


@pytest.fixture(scope='module')
def style_map(known):
  return codes.StyleMap.of(known)


def pixel(image, place):
  x, y = np.rint(np.array(place) * SIDE).astype(int)
  return image[y, x]


def solid(count):
  """Images with one colour each, all different."""
  colors = np.random.default_rng(1).integers(0, 200, (count, 3), dtype=np.uint8)
  return [np.broadcast_to(color, (64, 64, 3)).copy() for color in colors]


def test_images_are_at_their_styles_and_do_not_overlap(style_map):
  pictures = solid(200)
  drawn = map_picture.MapPicture.of(style_map, pictures)
  assert 10 < len(drawn.pictured) < 200
  for i in drawn.pictured:
    np.testing.assert_array_equal(pixel(drawn.image, style_map.points[i]), pictures[i][0, 0])


def test_without_pictures_there_are_dots(style_map):
  drawn = map_picture.MapPicture.of(style_map, [])
  assert not len(drawn.pictured)
  dots = np.array([pixel(drawn.image, point) for point in style_map.points])
  # The edge of a dot may overlap another.
  assert (dots < 200).all(axis=1).mean() > 0.9
  assert (drawn.image[:10] == 255).all()


def test_a_click_on_a_picture_means_it_though_dots_are_nearer(style_map):
  drawn = map_picture.MapPicture.of(style_map, solid(200))
  hidden = [i for i in range(200) if i not in drawn.pictured]
  on_a_picture = 0
  for i in hidden:
    point = style_map.points[i]
    away = np.abs(style_map.points[drawn.pictured] - point).max(axis=1) * SIDE
    if away.min() < 30:
      assert drawn.at(*point) == drawn.pictured[away.argmin()]
      on_a_picture += 1
  assert on_a_picture > 10


def test_a_click_elsewhere_means_the_nearest_dot(style_map):
  drawn = map_picture.MapPicture.of(style_map, [])
  for i, (x, y) in enumerate(style_map.points):
    assert drawn.at(x, y) == i


def test_the_current_style_has_a_ring(style_map, known):
  drawn = map_picture.MapPicture.of(style_map, [])
  marked = drawn.marked(known[3])
  rows, columns = np.nonzero((marked != drawn.image).any(axis=2))
  np.testing.assert_allclose([columns.mean(), rows.mean()], style_map.points[3] * SIDE, atol=3)
  # A point outside the map is drawn at the border.
  far = drawn.marked(known[3] * 100)
  assert (far != drawn.image).any()


def test_dots_do_not_overlap():
  places = np.random.default_rng(0).uniform(0, 100, (300, 2))
  taken = places[map_picture.apart(places, 10)]
  away = np.abs(taken[:, None] - taken[None]).max(axis=2)
  assert away[~np.eye(len(taken), dtype=bool)].min() >= 10
  # No further point would fit.
  assert np.abs(places[:, None] - taken[None]).max(axis=2).min(axis=1).max() < 10
