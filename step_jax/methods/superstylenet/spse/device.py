"""Superpixel style encoding of batches: all regions of all images in one program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from step_jax.methods.superstylenet.spse import clusters, layout, seeds, splines
from step_jax.methods.superstylenet.spse.colour import rgb_to_lab
from step_jax.methods.superstylenet.spse.outcome import Outcome
from step_jax.methods.superstylenet.spse.splines import SUPERPIXELS
from step_jax.methods.superstylenet.spse.window import COLOUR_SCALE, window_step


class Extraction(NamedTuple):
  """Style codes of a batch, with intermediate results.

  Attributes:
    codes: float32 `[B, L, 512]`; zeros for regions without a code.
    outcome: int32 `[B, L]`, an `Outcome` each, which says why a region has no code.
    seeds: int32 `[B, L, 128, 2]`, row and column; meaningless for absent labels.
    steps: float32 `[B, L]`, mean distance of neighbouring seeds, in pixels.
    label_dist, label_full: int32 `[B, H, W]`, the superpixel of each pixel after each pass, 0 ...
      127 within its region; -1 for none.
  """

  codes: jax.Array
  outcome: jax.Array
  seeds: jax.Array
  steps: jax.Array
  label_dist: jax.Array
  label_full: jax.Array

  @property
  def valid(self) -> jax.Array:
    """Whether a region has a code: bool `[B, L]`."""
    return self.outcome == Outcome.OK


def extract(images: jax.Array, labels: jax.Array, num_labels: int, table: jax.Array) -> Extraction:
  """Extracts the style code of each label of each image.

  Regions are independent, so the codes of an image do not depend on its batch. A 512 x 512 image
  needs about 60 MB.

  Args:
    images: `[B, H, W, 3]` RGB, uint8 or floats in [0, 1].
    labels: int `[B, H, W]`; values outside `0 ... num_labels - 1` belong to no region.
    num_labels: number of labels `L`, static.
    table: `splines.spline_table()`.
  """
  if images.dtype == jnp.uint8:
    images = images.astype(jnp.float32) / 255.0
  labels = labels.astype(jnp.int32)
  batch, height, width = labels.shape
  pixels = layout.arrange(labels, num_labels)
  starts = seeds.place_seeds(labels, pixels, num_labels)
  steps = seeds.seed_steps(starts)
  # A single gather of six values; colours are converted once per image.
  colours = jnp.concatenate([images, COLOUR_SCALE * rgb_to_lab(images)], axis=-1)
  colours = colours.reshape(-1, 6)[pixels.pixel]
  reach = tuple(2 * step for step in window_step(height, width))
  label_dist, label_full = clusters.cluster(pixels, colours[..., 3:], starts, steps, reach)
  codes, outcome = encode(colours[..., :3], label_full, pixels, steps, table)
  by_image = lambda values: values.reshape(batch, num_labels, *values.shape[1:])
  place = lambda values: layout.to_image(pixels, values, labels.shape, outside=-1)
  return Extraction(
    *map(by_image, (codes, outcome, starts, steps)), *map(place, (label_dist, label_full))
  )


def encode(
  rgb: jax.Array, label: jax.Array, pixels: layout.Layout, steps: jax.Array, table: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Codes of regions with given superpixels.

  Args:
    rgb: float32 `[N, T, 3]` in [0, 1].
    label: int32 `[N, T]`, superpixel of each pixel, -1 for none.
    pixels: layout of the pixels.
    steps: float32 `[R]`.
    table: `splines.spline_table()`.

  Returns:
    Codes, float32 `[R, 512]`, with zeros for none; and outcomes, int32 `[R]`.
  """
  values = jnp.concatenate([rgb, jnp.ones_like(rgb[..., :1])], axis=-1).reshape(-1, 4)
  regions = pixels.num_regions
  sums = jax.ops.segment_sum(values, clusters.segments(pixels, label), regions * SUPERPIXELS)
  sums = sums.reshape(regions, SUPERPIXELS, 4)
  alive = sums[..., 3] > 0
  means = sums[..., :3] / jnp.maximum(sums[..., 3:], 1)
  codes = splines.encode_means(means, alive, table)
  count = jnp.sum(alive, axis=1)
  outcome = jnp.select(
    [pixels.count == 0, steps == 0, ~splines.has_code(count)],
    [Outcome.ABSENT, Outcome.NO_STEP, Outcome.TOO_FEW_SUPERPIXELS],
    Outcome.OK,
  ).astype(jnp.int32)
  return jnp.where((outcome == Outcome.OK)[:, None], codes, 0.0), outcome
