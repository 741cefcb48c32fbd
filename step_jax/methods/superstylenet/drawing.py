"""Generates images with a trained generator; computations per layout are cached."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.generator import Generator, draw_noise
from step_jax.methods.superstylenet.training import network_codes


def to_uint8(images: jax.Array) -> jax.Array:
  """Images in [-1, 1] to uint8, any shape."""
  return jnp.round((images + 1.0) * 127.5).astype(jnp.uint8)


class Drawer:
  """A generator with its variables.

  It caches the part of the computation that depends only on the last label map, which is most of
  the work. Further styles of the same layout take about a third of the time each.
  """

  def __init__(self, generator: Generator, variables: Mapping[str, Any]):
    self._generator = generator
    self._variables = variables
    self._layout_of = jax.jit(
      lambda variables, labels: generator.apply(variables, labels, method='layout')
    )
    self._draw = jax.jit(self._apply)
    self._last = None

  def _apply(self, variables, labels, codes, key, layout):
    noise = None
    if key is not None:
      # The same noise for all styles, so that results differ only by their codes.
      noise = draw_noise(key, self._generator, 1, *labels.shape[1:])
    images = self._generator.apply(variables, labels, network_codes(codes), noise, False, layout)
    return to_uint8(images)

  def layout(self, labels: np.ndarray) -> Any:
    """`Generator.layout` of a label map, int `[H, W]`; cached until another map is requested."""
    labels = np.asarray(labels, np.int32)
    if self._last is None or not np.array_equal(self._last[0], labels):
      self._last = labels.copy(), self._layout_of(self._variables, labels[None])
    return self._last[1]

  def draw(self, labels: np.ndarray, codes: RegionCodes, seed: int | None = None) -> np.ndarray:
    """Generates images of one label map in one or many styles.

    Args:
      labels: int `[H, W]`.
      codes: `[L, C]` or `[N, L, C]`; labels without a code get the code of black, see
        `RegionCodes.complete`.
      seed: seed of the generator's noise, the same for all styles; None: no noise.

    Returns:
      uint8 `[H, W, 3]` or `[N, H, W, 3]`.
    """
    labels = np.asarray(labels, np.int32)
    key = None if seed is None else jax.random.key(seed)
    batch = codes.codes.reshape(-1, *codes.codes.shape[-2:])
    images = self._draw(self._variables, labels[None], batch, key, self.layout(labels))
    return np.asarray(images).reshape(*codes.codes.shape[:-2], *labels.shape, 3)
