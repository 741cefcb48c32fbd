"""Creates networks, losses and the training step from a configuration."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from step_jax import models, weights
from step_jax.methods.superstylenet import generator as generator_lib
from step_jax.methods.superstylenet import training
from step_jax.methods.superstylenet.discriminator import Discriminator
from step_jax.methods.superstylenet.generator import Generator
from step_jax.methods.superstylenet.spse import CODE_SIZE
from step_jax.train import optimizers


def generator(config: ml_collections.ConfigDict) -> Generator:
  """The generator of `config.model`."""
  model = config.model
  return Generator(
    num_labels=config.data.classes,
    style_size=CODE_SIZE,
    width=model.generator_width,
    num_upsamplings=model.num_upsamplings or generator_lib.num_upsamplings(min(config.data.crop)),
    label_width=model.label_width or CODE_SIZE,
    spade_width=model.spade_width,
    dtype=jnp.dtype(config.dtype),
  )


def discriminator(config: ml_collections.ConfigDict) -> Discriminator:
  """The discriminator of `config.model`."""
  return Discriminator(
    config.data.classes, config.model.discriminator_width, jnp.dtype(config.dtype)
  )


def trainer(
  config: ml_collections.ConfigDict, features: models.FeatureNet | None
) -> training.Trainer:
  """Creates the trainer.

  Args:
    config: configuration of the stage.
    features: feature network of the perceptual loss; None without that loss.
  """
  loss_weights = {name: config.loss[name] for name in training.WEIGHTS}
  taps = weights.tap_weights(config.features)
  rates = {name: config.optimizer[f'{name}_lr'] for name in training.LEARNING_RATES}
  return training.Trainer(
    training.Objectives(generator(config), discriminator(config), loss_weights, features, taps),
    {name: optimizers.schedule(config, rate) for name, rate in rates.items()},
    config.optimizer.b1,
    config.optimizer.b2,
    config.ema_decay,
    config.seed,
  )


def draw(
  module: Generator,
  variables: Mapping[str, Any],
  labels: jax.Array,
  codes: jax.Array,
  noise: Any = None,
  layout: Any = None,
) -> jax.Array:
  """Generates images from label maps and raw codes, without updating statistics.

  Args:
    module: the generator.
    variables: parameters and statistics.
    labels: int `[B, H, W]`, or `[1, H, W]` for all codes.
    codes: raw codes `[B, L, C]`; zeros for labels without a code.
    noise, layout: see `Generator`.

  Returns:
    float32 `[B, H, W, 3]` in [-1, 1].
  """
  return module.apply(variables, labels, training.network_codes(codes), noise, False, layout)
