"""Converts sRGB to CIE-Lab in the type of the input: float64 on the host, float32 on the device."""

from typing import Any

import jax.numpy as jnp
import numpy as np

# sRGB primaries and the D65 white point of the 2-degree observer (IEC 61966-2-1).
_TO_XYZ = (
  (0.412453, 0.357580, 0.180423),
  (0.212671, 0.715160, 0.072169),
  (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb: Any) -> Any:
  """CIE-Lab of sRGB colours.

  Args:
    rgb: floats `[..., 3]` in [0, 1], a NumPy or JAX array.

  Returns:
    `[..., 3]` of the same kind and type: L in 0..100, a and b in about -110..110.
  """
  xp = np if isinstance(rgb, np.ndarray) else jnp
  linear = xp.where(rgb > 0.04045, ((xp.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
  # Not a matrix product, which may round its factors to bfloat16.
  curved = []
  for row, white in zip(_TO_XYZ, _WHITE, strict=True):
    value = sum(factor * linear[..., i] for i, factor in enumerate(row)) / white
    curved.append(xp.where(value > 0.008856, xp.cbrt(value), 7.787 * value + 16.0 / 116.0))
  x, y, z = curved
  return xp.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)
