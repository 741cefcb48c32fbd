"""Computations of a trained pSp, as pure functions of modules, variables and arrays.

Variables are `{'encoder', 'generator', 'mean_style'}`: collections of the two modules, and the mean
style, `[D]` or `[n, D]`. A run with only StyleGAN2 has no encoder.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax import images
from step_jax.methods.psp import generator as generator_lib
from step_jax.methods.psp import resizing
from step_jax.methods.psp import styles as styles_lib
from step_jax.methods.psp.generator import Generator


def variables(state: Mapping) -> dict:
  """Variables for inference from a training state.

  Args:
    state: parts of a `TrainState` of either stage, by name.
  """
  stats = state['stats']
  if 'encoder' not in stats:
    generator, mean = state['ema']['generator'], stats['w_mean']
    return {'generator': {'params': generator, 'noise': stats['noise']}, 'mean_style': mean}
  params = state['params']
  return {
    'encoder': {'params': params['encoder'], 'batch_stats': stats['encoder']},
    'generator': {'params': params['generator'], 'noise': stats['noise']},
    'mean_style': stats['mean_style'],
  }


def stats_of(variables: Mapping) -> dict:
  """`TrainState.stats` of the stage `psp`, from variables."""
  return {
    'encoder': variables['encoder']['batch_stats'],
    'noise': variables['generator']['noise'],
    'mean_style': variables['mean_style'],
  }


def fit(pictures: jax.Array, side: int) -> jax.Array:
  """Resizes images by adaptive pooling: uint8 `[B, H, W, 3] -> [B, side, side, 3]`."""
  if pictures.shape[1] == side:
    return pictures
  return images.to_uint8(resizing.adaptive_pool(images.to_float(pictures), side))


def encode(
  encoder: nn.Module,
  generator: Generator,
  variables: Mapping,
  inputs: jax.Array,
  start_from_mean: bool = True,
) -> jax.Array:
  """Styles of images, `[B, H, W, C] -> [B, n, D]`.

  Args:
    encoder, generator: the modules.
    variables: see above.
    inputs: images from `train_psp.to_input`.
    start_from_mean: whether the encoder predicts offsets from the mean style.
  """
  styles = encoder.apply(variables['encoder'], inputs, train=False)
  styles = generator_lib.broadcast(styles, generator.num_styles)
  return styles + variables['mean_style'] if start_from_mean else styles


def random_styles(
  generator: Generator, variables: Mapping, z: jax.Array, truncation: float | jax.Array = 1.0
) -> jax.Array:
  """Styles of latents, the same for all layers: `[B, D] -> [B, n, D]`.

  Args:
    generator: the module.
    variables: see above.
    z: latents from N(0, I).
    truncation: 1: no truncation; 0: the mean style.
  """
  w = generator.apply(variables['generator'], z, method='map')
  w = generator_lib.broadcast(w, generator.num_styles)
  return generator_lib.truncate(w, variables['mean_style'], truncation)


def draw(
  generator: Generator,
  variables: Mapping,
  styles: jax.Array,
  noise: Sequence[jax.Array] | None = None,
  round_down: bool = False,
) -> jax.Array:
  """Generates images from styles, `[B, n, D]` to uint8 `[B, size, size, 3]`.

  Args:
    generator: the module.
    variables: see above.
    styles: one style per layer.
    noise: see `generator.random_noise`; None: constant noise.
    round_down: round down to uint8 as in the reference, for comparisons with its numbers.
  """
  image = generator.apply(variables['generator'], styles, noise, method='synthesize')
  return images.to_uint8(image, truncate=round_down)


def mix(
  variables: Mapping,
  styles: jax.Array,
  other: jax.Array | None,
  layers: Sequence[int],
  alpha: float | jax.Array = 1.0,
) -> jax.Array:
  """Replaces the styles of some layers, `[B, n, D]`; see `styles.inject`.

  Args:
    variables: see above.
    styles: `[B, n, D]`.
    other: styles of another image or of latents; None: the mean style.
    layers: see `styles.parse_layers`.
    alpha: weight of `other`.
  """
  other = variables['mean_style'] if other is None else other
  return styles_lib.inject(styles, other, layers, alpha)


def interpolate(first: jax.Array, second: jax.Array, steps: int) -> jax.Array:
  """Linear interpolation of styles, including both ends: `[n, D], [n, D] -> [steps, n, D]`."""
  weight = jnp.linspace(0.0, 1.0, steps)[:, None, None]
  return (1 - weight) * first + weight * second
