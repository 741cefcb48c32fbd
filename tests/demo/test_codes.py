"""Style codes by blending, sliders and map."""

import numpy as np
import pytest

from step_jax.methods.step.page import choice, codes


def random_codes(count, z_dim=8, seed=0):
  return np.random.default_rng(seed).normal(size=(count, z_dim)).astype(np.float32)


def test_a_blend_begins_and_ends_at_its_styles():
  a, b = random_codes(2)
  np.testing.assert_array_equal(codes.blend(a, b, 0), a)
  np.testing.assert_array_equal(codes.blend(a, b, 1), b)
  np.testing.assert_allclose(codes.blend(a, b, 0.25), a + (b - a) / 4, rtol=1e-6)


def test_sliders_hold_all_codes_of_the_run():
  known = random_codes(50)
  sliders = codes.Sliders.of(known)
  assert (sliders.low < known.min(axis=0)).all() and (sliders.high > known.max(axis=0)).all()
  np.testing.assert_allclose(sliders.values(known[7]), known[7], atol=0.00501)


def test_sliders_of_one_code_can_be_moved():
  sliders = codes.Sliders.of(np.full((3, 2), 0.5, np.float32))
  assert (sliders.high - sliders.low >= 2).all()


def test_a_slider_changes_only_its_dimension():
  """Precision and values outside of the slider range are kept when a slider moves."""
  sliders = codes.Sliders.of(random_codes(50))
  code = random_codes(1, seed=1)[0]
  code[5] = 40
  values = sliders.values(code)
  assert values[5] == sliders.high[5]
  np.testing.assert_array_equal(sliders.moved(code, values), code)
  values[2] = -0.33
  moved = sliders.moved(code, values)
  expected = code.copy()
  expected[2] = -0.33
  np.testing.assert_array_equal(moved, expected)
  assert moved.dtype == np.float32


def test_the_second_style_is_unlike_the_first():
  several = np.array([[0, 0], [3, 0], [-1, 2], [1, 1]], np.float32)
  assert codes.farthest(several, 0) == 1 and codes.farthest(several, 1) == 2
  assert codes.farthest(several[:1], 0) == 0


def test_a_style_in_use_is_one_end_of_the_blend():
  a, b, c = random_codes(3)
  chosen = choice.Choice.of(None, a, c).with_style(choice.SECOND, b)
  np.testing.assert_array_equal(chosen.code, b)
  np.testing.assert_array_equal(chosen.blended(choice.blend_of(choice.SECOND)).code, b)
  np.testing.assert_array_equal(chosen.blended(choice.blend_of(choice.FIRST)).code, a)
  chosen = chosen.with_style(choice.FIRST, c)
  np.testing.assert_array_equal(chosen.code, c)
  np.testing.assert_allclose(chosen.blended(0.5).code, (b + c) / 2, rtol=1e-6)


class TestMap:
  @pytest.fixture(autouse=True)
  def needs_sklearn(self):
    pytest.importorskip('sklearn', reason="sklearn is missing: pip install -e '.[demo]'")

  def test_shows_the_directions_of_most_variance(self):
    known = random_codes(100)
    known[:, 3] *= 50
    known[:, 6] *= 20
    style_map = codes.StyleMap.of(known)
    assert abs(np.corrcoef(style_map.points[:, 0], known[:, 3])[0, 1]) > 0.99
    assert abs(np.corrcoef(style_map.points[:, 1], known[:, 6])[0, 1]) > 0.99
    variances = known.var(axis=0)
    assert style_map.share == pytest.approx(variances[[3, 6]].sum() / variances.sum(), rel=0.01)

  def test_is_within_the_square_and_to_one_scale(self):
    known = random_codes(100)
    style_map = codes.StyleMap.of(known)
    points = style_map.points
    assert points.min() > 0.05 and points.max() < 0.95 and np.ptp(points, axis=0).max() > 0.85
    along = np.zeros((3, 8), np.float32)
    along[1:] = 0.1 * style_map._pca.components_
    zero, x, y = style_map.place(along)
    assert np.linalg.norm(x - zero) == pytest.approx(np.linalg.norm(y - zero), rel=1e-3)

  def test_a_dot_is_found_where_it_lies(self):
    known = random_codes(30)
    style_map = codes.StyleMap.of(known)
    np.testing.assert_allclose(style_map.place(known[4:5])[0], style_map.points[4])
    for i, (x, y) in enumerate(style_map.points):
      assert style_map.nearest(x + 1e-4, y - 1e-4) == i

  @pytest.mark.parametrize('shape', [(5, 1), (2, 8), (3, 2)])
  def test_few_codes_or_dimensions_will_do(self, shape):
    style_map = codes.StyleMap.of(random_codes(*shape))
    assert style_map.points.shape == (shape[0], 2) and np.isfinite(style_map.points).all()

  def test_codes_that_are_all_the_same_will_do(self):
    style_map = codes.StyleMap.of(np.ones((4, 8), np.float32))
    np.testing.assert_allclose(style_map.points, 0.5)
    assert style_map.share == 0
