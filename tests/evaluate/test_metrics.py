"""Image scores, for inputs that reveal common mistakes."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from step_jax import losses
from step_jax.data import pipeline
from step_jax.evaluate import metrics, scores


def flat(value, batch=1):
  return jnp.full((batch, 4, 6, 3), value, jnp.uint8)


def test_differences_of_uint8_do_not_wrap_around():
  assert float(metrics.l1(flat(10), flat(12))[0]) == np.float32(2 / 255)
  assert float(metrics.l1(flat(12), flat(10))[0]) == np.float32(2 / 255)
  np.testing.assert_allclose(metrics.psnr(flat(10), flat(12)), 10 * np.log10(255**2 / 4), rtol=1e-6)


def test_equal_pictures():
  assert float(metrics.l1(flat(7), flat(7))[0]) == 0
  assert np.isinf(metrics.psnr(flat(7), flat(7)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999))
def test_scores_are_symmetric_and_per_image(seed):
  x, y = np.random.default_rng(seed).integers(0, 256, (2, 3, 5, 7, 3), dtype=np.uint8)
  for metric in (metrics.psnr, metrics.l1):
    forward = metric(jnp.asarray(x), jnp.asarray(y))
    assert forward.shape == (3,)
    np.testing.assert_allclose(forward, metric(jnp.asarray(y), jnp.asarray(x)), rtol=1e-6)
    alone = metric(jnp.asarray(x[1:2]), jnp.asarray(y[1:2]))
    np.testing.assert_allclose(forward[1:2], alone, rtol=1e-5)


def test_no_picture_is_lost_at_the_end_and_none_counted_twice():
  pictures = ({'target': np.full((2, 3 + i % 2, 3), i, np.uint8)} for i in range(11))
  found = scores.collect(
    lambda batch: {'value': batch['target'].mean(axis=(1, 2, 3))},
    pipeline.eval_batches(pictures, 4),
  )
  np.testing.assert_array_equal(found['value'], np.arange(11))


def test_lpips_ignores_the_scale_of_features_and_sees_their_direction():
  x = {'a': jax.random.uniform(jax.random.key(0), (2, 4, 4, 5))}
  y = {'a': jax.random.uniform(jax.random.key(1), (2, 4, 4, 5))}
  heads = {'a': jnp.ones(5)}
  distance = losses.lpips(x, y, heads)
  np.testing.assert_allclose(losses.lpips({'a': 7 * x['a']}, y, heads), distance, rtol=1e-5)
  np.testing.assert_allclose(losses.lpips(x, x, heads), 0, atol=1e-9)
  assert (distance > 0).all()
