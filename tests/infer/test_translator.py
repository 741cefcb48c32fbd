"""A trained run as a Python object."""

import numpy as np
import pytest

import step_jax
from step_jax.errors import RunError


@pytest.fixture(scope='module')
def run(trained_run):
  return step_jax.load(trained_run[0])


@pytest.fixture(scope='module')
def pictures():
  return np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)


def test_shapes_follow_the_input(run, pictures):
  assert run.encode(pictures).shape == (3, 8) and run.encode(pictures[0]).shape == (8,)
  z = run.encode(pictures)
  assert run.translate(pictures, z).shape == pictures.shape
  assert run.translate(pictures[0], z[0]).shape == pictures[0].shape
  assert run.sample(pictures, 2).shape == (2, *pictures.shape)
  assert run.sample(pictures[0], 4).shape == (4, *pictures[0].shape)
  assert run.interpolate(pictures[0], pictures[1], pictures[2], 5).shape == (5, 16, 24, 3)
  assert run.translate(pictures, z).dtype == np.uint8


def test_batching_does_not_matter(run):
  many = np.random.default_rng(1).integers(0, 256, (19, 16, 16, 3), dtype=np.uint8)
  whole = run.encode(many)
  single = np.stack([run.encode(picture) for picture in many])
  np.testing.assert_allclose(whole, single, rtol=1e-4, atol=1e-5)


def test_one_style_for_all_sources(run, pictures):
  z = run.encode(pictures[0])
  together = run.translate(pictures, z)
  alone = np.stack([run.translate(picture, z) for picture in pictures])
  assert np.abs(together.astype(int) - alone).max() <= 1
  by_picture = run.translate(pictures, style=pictures[0])
  np.testing.assert_array_equal(together, by_picture)


def test_interpolation_begins_and_ends_at_its_styles(run, pictures):
  line = run.interpolate(pictures[0], pictures[1], pictures[2], 3)
  np.testing.assert_array_equal(line[0], run.translate(pictures[0], style=pictures[1]))
  ends = line[-1].astype(int) - run.translate(pictures[0], style=pictures[2])
  assert np.abs(ends).max() <= 1


def test_sizes_that_the_generator_cannot_halve_are_padded_and_cropped(run):
  rng = np.random.default_rng(0)
  for height, width in ((17, 16), (16, 23), (31, 20)):
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert run.translate(picture, run.encode(picture)).shape == (height, width, 3)


def test_seeds_draw_the_same_styles(run):
  for how in ('mapper', 'gaussian'):
    np.testing.assert_array_equal(
      run.draw(3, seed=1, sampler=how), run.draw(3, seed=1, sampler=how)
    )
    assert not np.array_equal(run.draw(3, seed=1, sampler=how), run.draw(3, seed=2, sampler=how))


def test_gaussian_draws_have_the_moments_of_the_codes(run):
  drawn = run.draw(20_000, sampler='gaussian')
  np.testing.assert_allclose(drawn.mean(0), run.codes.mean(0), atol=0.02)
  np.testing.assert_allclose(np.cov(drawn.T), np.cov(run.codes.T), atol=0.02)


def test_unsupported_requests_are_reported(run, pictures, trained_run, tmp_path):
  with pytest.raises(ValueError, match='either style codes'):
    run.translate(pictures)
  with pytest.raises(ValueError, match='must be uint8'):
    run.encode(pictures.astype(np.float32))
  with pytest.raises(RunError, match='cannot draw styles'):
    run.draw(1, sampler='dice')
  with pytest.raises(RunError, match='has no trained generator'):
    step_jax.load(tmp_path)


def test_a_single_stage_can_be_opened(trained_run, run):
  stage = step_jax.load(trained_run[0] / 'translate')
  assert stage.config.stage == 'translate' and run.config.stage == 'finetune'
  assert run.step == 6
