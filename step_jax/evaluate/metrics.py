"""Distances between images, one value per image."""

import jax
import jax.numpy as jnp
import numpy as np

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_K = (0.01, 0.03)


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio in dB of uint8 images `[B, H, W, 3]`: float32 `[B]`.

  `10 log10(255^2 / mse)` over all pixels and channels; infinite for equal images.
  """
  return 10.0 * jnp.log10(255.0**2 / jnp.mean(jnp.square(_difference(x, y)), axis=(1, 2, 3)))


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean absolute difference of uint8 images `[B, H, W, 3]`, divided by 255: float32 `[B]`."""
  return jnp.mean(jnp.abs(_difference(x, y)), axis=(1, 2, 3)) / 255.0


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
  """Structural similarity of uint8 images `[B, H, W, 3]`: float32 `[B]` in -1..1; 1 if equal.

  Wang et al. 2004, eq. 13: Gaussian window of 11x11 and sigma 1.5, K = (0.01, 0.03), range 255,
  mean over channels and over all positions where the window is inside the image. Agrees with
  scikit-image with the settings of that paper.

  Raises:
    ValueError: the images are smaller than the window.
  """
  if min(x.shape[1:3]) < _SSIM_WINDOW:
    raise ValueError(f'SSIM needs pictures of {_SSIM_WINDOW} px or more, not {list(x.shape[1:3])}')
  # The terms of the paper, written with differences: 2ab = a^2 + b^2 - (a - b)^2. Otherwise, flat
  # bright regions of similar images lose precision in float32.
  center = 127.5
  difference = _difference(x, y)
  x, y = x.astype(jnp.float32) - center, y.astype(jnp.float32) - center
  mean_x, mean_difference = _blur(x), _blur(difference)
  mean_y = mean_x - mean_difference
  variances = _blur(x * x + y * y) - mean_x**2 - mean_y**2
  variance_of_difference = _blur(difference**2) - mean_difference**2
  means = (mean_x + center) ** 2 + (mean_y + center) ** 2
  c1, c2 = ((k * 255.0) ** 2 for k in _SSIM_K)
  luminance = 1 - mean_difference**2 / (means + c1)
  structure = 1 - variance_of_difference / (variances + c2)
  return jnp.mean(luminance * structure, axis=(1, 2, 3))


def content_distance(x: jax.Array, y: jax.Array) -> jax.Array:
  """Distance of the content of images, given features `[B, H, W, C]`: float32 `[B]`.

  Mean squared difference after normalising each channel over the image, which removes the style:
  the domain-invariant perceptual distance of Huang et al. 2018 (MUNIT), sec. 5.2.
  """

  def normal(features):
    features = features.astype(jnp.float32)
    deviation = jnp.std(features, axis=(1, 2), keepdims=True)
    return (features - jnp.mean(features, axis=(1, 2), keepdims=True)) / (deviation + 1e-5)

  return jnp.mean(jnp.square(normal(x) - normal(y)), axis=(1, 2, 3))


def _blur(x: jax.Array) -> jax.Array:
  """Gaussian mean of all windows inside `[B, H, W, C]`, as float32 sums of slices."""
  offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
  weights = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
  weights /= weights.sum()
  for axis in (1, 2):
    size = x.shape[axis] - _SSIM_WINDOW + 1
    slices = [jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(_SSIM_WINDOW)]
    x = sum(float(weight) * part for weight, part in zip(weights, slices, strict=True))
  return x


def _difference(x: jax.Array, y: jax.Array) -> jax.Array:
  # Subtracting uint8 from uint8 wraps around: |10 - 12| would be 254.
  return x.astype(jnp.float32) - y.astype(jnp.float32)
