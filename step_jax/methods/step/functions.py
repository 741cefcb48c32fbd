"""Encoding and generation as pure functions of parameters and uint8 images."""

from collections.abc import Mapping

import jax

from step_jax import images
from step_jax.methods.step import models as nets
from step_jax.methods.step.models import generator as generator_lib


def encode(encoder: nets.StyleEncoder, params: Mapping, pictures: jax.Array) -> jax.Array:
  """Style codes of images: uint8 `[B, H, W, 3] -> [B, Z]`."""
  z, _, _ = encoder.apply({'params': params['style_encoder']}, images.to_float(pictures))
  return z


def generate(
  generator: nets.Generator, params: Mapping, sources: jax.Array, z: jax.Array
) -> jax.Array:
  """Translates sources of any size into given styles.

  Sources are padded to a multiple of the generator's stride, and the result is cropped back.

  Args:
    generator: the module.
    params: network -> parameters.
    sources: uint8 `[B, H, W, 3]`.
    z: style codes `[B, Z]`.

  Returns:
    uint8 `[B, H, W, 3]`.
  """
  height, width = sources.shape[1:3]
  padded = images.pad_to_multiple(images.to_float(sources), generator_lib.SIZE_MULTIPLE)
  pictures = generator.apply({'params': params['generator']}, padded, z)[:, :height, :width]
  return images.to_uint8(pictures)
