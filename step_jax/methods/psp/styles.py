"""Operations on styles of W+ between an encoder and a generator."""

from collections.abc import Sequence
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np

from step_jax.errors import ConfigError, shown

log = logging.getLogger(__name__)

_RANGE = re.compile(r'(-?\d+)(?:(-)(-?\d+)?)?', re.ASCII)


def inject(
  styles: jax.Array, other: jax.Array, layers: Sequence[int], alpha: float | jax.Array = 1.0
) -> jax.Array:
  """Replaces the styles of some layers: `alpha * other + (1 - alpha) * styles` there.

  Args:
    styles: `[B, n, D]`.
    other: styles that broadcast to the same shape: of another image, of a random latent, or the
      mean style if there is nothing to inject (the reference of pSp uses zeros).
    layers: indices, starting at 0.
    alpha: weight of `other`.
  """
  mask = np.zeros((styles.shape[1], 1), bool)
  mask[list(layers)] = True
  return jnp.where(mask, alpha * other + (1 - alpha) * styles, styles)


def first_fine(num_styles: int) -> int:
  """The first layer that does not change the layout of an image: 8 of 18, or in proportion."""
  return round(num_styles * 8 / 18)


def parse_layers(text: str, num_styles: int) -> tuple[int, ...]:
  """Layers from a list of indices and ranges, such as `8-`, `8-13`, `0,3,8-`, `-4-` or `-1`.

  Ranges include both ends; negative indices count from the end. Indices beyond the last layer are
  ignored with a warning, because lists for 18 layers are also used with smaller generators.

  Args:
    text: the list; empty: no layers.
    num_styles: number of layers of the generator.

  Raises:
    ConfigError: the text is not such a list, or names no layer of this generator.
  """
  layers: set[int] = set()
  beyond = False
  parts = [part for part in text.replace(' ', '').split(',') if part]
  for part in parts:
    match = _RANGE.fullmatch(part)
    if not match:
      raise ConfigError(
        f'layers {shown(text)!r}: {shown(part)!r} is not an index or a range; '
        'give indices such as 8 and ranges such as 8- or 8-13, with commas between them'
      )
    first = _index(match[1], num_styles)
    last = first
    if match[2]:
      last = num_styles - 1 if match[3] is None else _index(match[3], num_styles)
    if min(first, last) < 0:
      raise ConfigError(
        f'layers {shown(text)!r}: {part!r} is before the first of {num_styles} layers; '
        f'negative indices go from -{num_styles} to -1'
      )
    beyond = beyond or max(first, last) >= num_styles
    layers.update(range(first, min(last, num_styles - 1) + 1))
  if parts and not layers:
    raise ConfigError(
      f'layers {shown(text)!r} name none of the {num_styles} layers of this generator; '
      f'use indices from 0 to {num_styles - 1}'
    )
  if beyond:
    log.warning(
      'layers %s: this generator has %d layers; the others are left out', text, num_styles
    )
  return tuple(sorted(layers))


def _index(text: str, num_styles: int) -> int:
  index = int(text[:9])
  return index + num_styles if index < 0 else index
