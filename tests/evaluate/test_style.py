"""Scores of style codes, for codes with known scores."""

import tracemalloc

import numpy as np
import pytest

from step_jax.data import swatches
from step_jax.methods.step.scores import style


def names(split, count):
  return [f'{split}/{i:05d}' for i in range(count)]


def codes(split, count, factors=()):
  """Rotated and scaled noise `[count, 8]` whose first entries are the factors of swatches."""
  random = np.random.RandomState(len(split))
  z = random.standard_normal((count, 8))
  for i, name in enumerate(names(split, count)):
    for j, factor in enumerate(factors):
      z[i, j] = 100 * factor(swatches.style_of(name)) - 7
  mix = np.random.RandomState(0).standard_normal((8, 8))
  return z @ mix


LIGHT = (
  lambda s: np.cos(s.light_angle),
  lambda s: np.sin(s.light_angle),
  lambda s: s.light_strength,
)


def test_the_probe_finds_only_information_in_the_codes():
  train, tested = codes('train', 400, LIGHT), codes('val', 100, LIGHT)
  errors = style.probe(train, names('train', 400), tested, names('val', 100))
  assert errors['light'].shape == (100, 2, 3)
  found = {group: style.r_squared(values) for group, values in errors.items()}
  assert found['light'] > 0.99
  assert found['palette'] < 0.1 and found['texture'] < 0.1
  # With codes in the wrong order, the fit does not predict.
  errors = style.probe(train, names('train', 400), tested[::-1], names('val', 100))
  assert style.r_squared(errors['light']) < 0.1


def test_retrieval_is_one_for_the_codes_that_made_it_and_chance_for_others():
  random = np.random.RandomState(0)
  z = random.standard_normal((200, 8))
  distance = np.linalg.norm(z[:, None] - z[None], axis=-1)
  np.fill_diagonal(distance, np.inf)
  nearest = np.argsort(distance, axis=1)[:, :5]
  np.testing.assert_array_equal(style.retrieval_precision(z, nearest), 1)
  # Independent of scale, but not of the order of the images.
  np.testing.assert_array_equal(style.retrieval_precision(9 * z, nearest), 1)
  chance = style.retrieval_precision(random.standard_normal((200, 8)), nearest).mean()
  assert abs(chance - 5 / 199) < 0.02


@pytest.mark.parametrize('count', [2, 7])
def test_mean_code_distance(count):
  z = np.random.RandomState(0).standard_normal((count, 3)).astype(np.float32)
  pairs = [np.linalg.norm(z[i] - z[j]) for i in range(count) for j in range(i)]
  np.testing.assert_allclose(style.mean_code_distance(z), np.mean(pairs), rtol=1e-6)
  assert style.mean_code_distance(z[:1]) == 0


def test_no_matrix_of_all_distances_is_allocated():
  z = np.random.RandomState(0).standard_normal((1500, 8))
  tracemalloc.start()
  style.mean_code_distance(z)
  style.retrieval_precision(z, np.zeros((1500, 5), int))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1500 * 1500
