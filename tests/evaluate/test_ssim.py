"""SSIM and PSNR against scikit-image, and SSIM against its definition."""

import jax
import numpy as np
from PIL import Image
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from step_jax.evaluate import metrics

ssim = jax.jit(metrics.ssim)


def noise(seed, height=40, width=56):
  return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def smooth(seed, height=40, width=56):
  return np.asarray(Image.fromarray(noise(seed, 5, 5)).resize((width, height)))


def pairs():
  photo = smooth(0)
  noisy = np.clip(photo.astype(int) + noise(1) % 7 - 3, 0, 255).astype(np.uint8)
  white = np.full_like(photo, 255)
  return [
    *[(photo, noisy), (photo, smooth(2)), (photo, noise(3)), (noise(4), 255 - noise(4))],
    *[(white, white - 1), (white, 0 * white), (photo, photo), (white, white)],
  ]


def test_ssim_and_psnr_match_scikit_image():
  x, y = (np.stack(side) for side in zip(*pairs(), strict=True))
  expected = [
    structural_similarity(
      *pair,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      channel_axis=2,
      data_range=255,
    )
    for pair in pairs()
  ]
  found = ssim(x, y)
  assert found.shape == (8,) and found.dtype == np.float32
  np.testing.assert_allclose(found, expected, atol=2e-6)
  np.testing.assert_array_equal(found[-2:], 1)
  np.testing.assert_allclose(ssim(y, x), found, atol=2e-6)
  expected = [peak_signal_noise_ratio(*pair, data_range=255) for pair in pairs()[:6]]
  np.testing.assert_allclose(metrics.psnr(x, y)[:6], expected, rtol=1e-5, atol=1e-5)


def test_ssim_is_what_the_paper_defines():
  x, y = smooth(0, 13, 12), noise(1, 13, 12)
  offsets = np.arange(-5, 6)
  weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))[..., None]
  weights /= weights.sum()
  mean = lambda window: np.sum(weights * window, axis=(0, 1))
  values = []
  for i in range(3):
    for j in range(2):
      a, b = (z[i : i + 11, j : j + 11].astype(float) for z in (x, y))
      ma, mb = mean(a), mean(b)
      va, vb, cov = mean((a - ma) ** 2), mean((b - mb) ** 2), mean((a - ma) * (b - mb))
      luminance = (2 * ma * mb + 2.55**2) / (ma**2 + mb**2 + 2.55**2)
      values.append(luminance * (2 * cov + 7.65**2) / (va + vb + 7.65**2))
  np.testing.assert_allclose(ssim(x[None], y[None])[0], np.mean(values), atol=1e-6)


def test_ssim_is_per_image():
  x, y = (np.stack(side) for side in zip(*pairs(), strict=True))
  np.testing.assert_allclose(ssim(x[2:3], y[2:3])[0], ssim(x, y)[2], atol=1e-6)


def test_pictures_smaller_than_the_window_are_refused():
  small = np.zeros((1, 10, 64, 3), np.uint8)
  with pytest.raises(ValueError, match=r'11 px or more, not \[10, 64\]'):
    ssim(small, small)
  just = np.zeros((1, 11, 11, 3), np.uint8)
  assert ssim(just, just)[0] == 1
