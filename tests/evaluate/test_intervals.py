"""Bootstrap intervals: their width agrees with theory, and they are reproducible."""

import numpy as np

from step_jax.evaluate.intervals import bootstrap
from step_jax.evaluate.protocols import PROTOCOLS
from step_jax.evaluate.scores import mean_score


def test_width_is_that_of_the_standard_error():
  values = np.random.RandomState(0).standard_normal(400) + 5
  low, high = bootstrap(values)
  error = values.std() / np.sqrt(len(values))
  np.testing.assert_allclose(
    [low, high], values.mean() + 1.96 * error * np.array([-1, 1]), rtol=5e-3
  )
  assert bootstrap(values) == (low, high) != bootstrap(values, seed=1)
  wider = bootstrap(values, level=0.99)
  assert wider[0] < low and wider[1] > high


def test_it_holds_the_mean_as_often_as_it_says():
  held = 0
  for seed in range(100):
    low, high = bootstrap(np.random.RandomState(seed).standard_exponential(60), seed)
    held += low < 1 < high
  assert 85 <= held <= 99


def test_any_statistic_of_pictures_has_an_interval():
  pairs = np.random.RandomState(0).standard_normal((200, 2)) + [4, 2]
  ratio = lambda values: values[:, 0].mean() / values[:, 1].mean()
  low, high = bootstrap(pairs, statistic=ratio)
  assert low < ratio(pairs) < high and high - low < 0.4


def test_images_without_a_value_are_excluded():
  score = mean_score(PROTOCOLS['psnr/uint8'], np.array([1.0, np.nan, 3.0]))
  assert score.value == 2 and score.interval == bootstrap(np.array([1.0, 3.0]))
  assert len(score.values) == 3
  assert np.isnan([*bootstrap(np.array([np.nan])), *bootstrap(np.array([]))]).all()
