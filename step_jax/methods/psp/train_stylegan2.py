"""Training step of StyleGAN2: discriminator, generator, and lazy regularisation.

A step is one compiled program: discriminator update, R1 every 16th step, generator update with the
updated discriminator, path length every 4th step, moving averages. Order and hyper-parameters are
those of rosinality's PyTorch implementation.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from step_jax import images, losses
from step_jax.methods.psp import augment, gan, networks
from step_jax.methods.psp import generator as generator_lib
from step_jax.methods.psp.discriminator import Discriminator
from step_jax.methods.psp.generator import Generator
from step_jax.train import optimizers
from step_jax.train import state as state_lib

# Decay rate of the running mean of W.
W_MEAN_DECAY = 0.995


class Latents(NamedTuple):
  """Random inputs of a batch of generated images.

  Attributes:
    z: `[2, B, D]`, two latents per image.
    crossover: int32 scalar, first layer that uses the second latent.
    noise: noise of each convolution, `[B, H, W, 1]`.
  """

  z: jax.Array
  crossover: jax.Array
  noise: Sequence[jax.Array]


class Draws(NamedTuple):
  """All random inputs of a step.

  Attributes:
    discriminator, generator, path: latents of the three generated batches.
    pixels: `[B', H, W, 3]` from N(0, 1), directions for the path lengths.
    augment: keys `[4]` for the augmentation of real and generated images for the discriminator, of
      real images for R1, and of generated images for the generator.
  """

  discriminator: Latents
  generator: Latents
  path: Latents
  pixels: jax.Array
  augment: jax.Array


@dataclasses.dataclass(frozen=True)
class Objectives:
  """The losses of StyleGAN2 as functions of the trained parameters.

  Attributes:
    generator, discriminator: the modules.
    style_mixing: probability that the images of a batch have two styles.
    path_shrink: factor by which the batch for path lengths is smaller.
    policy: see `augment.augment`.
  """

  generator: Generator
  discriminator: Discriminator
  style_mixing: float = 0.9
  path_shrink: int = 2
  policy: Sequence[str] = ()

  def draw(self, key: jax.Array, batch: int) -> Draws:
    """Draws all random inputs of a step with `batch` images."""
    keys = jax.random.split(key, 5)
    small = max(1, batch // self.path_shrink)
    size = self.generator.size
    return Draws(
      self._latents(keys[0], batch),
      self._latents(keys[1], batch),
      self._latents(keys[2], small),
      jax.random.normal(keys[3], (small, size, size, 3)),
      jax.random.split(keys[4], 4),
    )

  def _latents(self, key, batch):
    z_key, coin_key, layer_key, noise_key = jax.random.split(key, 4)
    layers = self.generator.num_styles
    crossover = jax.random.randint(layer_key, (), 1, layers)
    mixed = jax.random.bernoulli(coin_key, self.style_mixing)
    return Latents(
      jax.random.normal(z_key, (2, batch, self.generator.style_dim)),
      jnp.where(mixed, crossover, layers),
      generator_lib.random_noise(noise_key, batch, self.generator.size),
    )

  def styles(self, params: Mapping, latents: Latents) -> tuple[jax.Array, jax.Array]:
    """Styles of latents per layer, `[B, n, D]`, and styles of the first latents, `[B, D]`."""
    w = [self.generator.apply({'params': params}, z, method='map') for z in latents.z]
    both = (generator_lib.broadcast(x, self.generator.num_styles) for x in w)
    return generator_lib.mix(*both, latents.crossover), w[0]

  def synthesize(self, params: Mapping, w_plus: jax.Array, latents: Latents) -> jax.Array:
    """Generates images from styles, `[B, n, D] -> [B, H, W, 3]`, with the noise of `latents`."""
    return self.generator.apply({'params': params}, w_plus, latents.noise, method='synthesize')

  def judge(self, params: Mapping, key: jax.Array, pictures: jax.Array) -> jax.Array:
    """Logits of augmented images, `[B, H, W, 3] -> [B, 1]`."""
    return self.discriminator.apply({'params': params}, augment.augment(key, pictures, self.policy))

  def discriminator_loss(
    self, params: Mapping, real: jax.Array, fake: jax.Array, keys: jax.Array
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Loss of the discriminator, and mean logits of real and of generated images; scalars."""
    logits = self.judge(params, keys[0], real), self.judge(params, keys[1], fake)
    return gan.discriminator_loss(*logits), tuple(map(jnp.mean, logits))

  def r1(self, params: Mapping, real: jax.Array, keys: jax.Array) -> jax.Array:
    """R1 penalty of the discriminator on real images, a scalar."""
    return losses.r1_penalty(functools.partial(self.judge, params, keys[2]), real)

  def generator_loss(
    self, params: Mapping, discriminator: Mapping, latents: Latents, keys: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Loss of the generator, a scalar, and the mean style of the batch, `[D]`."""
    w_plus, w = self.styles(params, latents)
    fake = self.synthesize(params, w_plus, latents)
    return gan.generator_loss(self.judge(discriminator, keys[3], fake)), jnp.mean(w, axis=0)

  def path(
    self, params: Mapping, latents: Latents, pixels: jax.Array, mean: jax.Array
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Path length penalty, updated running mean of lengths, and batch mean of lengths; scalars."""
    w_plus, _ = self.styles(params, latents)
    synthesize = lambda w_plus: self.synthesize(params, w_plus, latents)
    lengths = gan.path_lengths(synthesize, w_plus, pixels)
    penalty, mean = gan.path_penalty(lengths, mean)
    return penalty, (mean, jnp.mean(lengths))


def make_objectives(config: ml_collections.ConfigDict) -> Objectives:
  """The objectives of a configuration; see `make`."""
  return Objectives(
    networks.generator(config),
    networks.discriminator(config),
    config.style_mixing,
    config.path_shrink,
    tuple(config.augment),
  )


def make_optimizers(config: ml_collections.ConfigDict) -> dict[str, state_lib.Optimizer]:
  """One Adam optimizer per network, which is also used for its regulariser."""
  base = gan.AdamSettings(*(config.optimizer[name] for name in gan.AdamSettings._fields))
  by_name = {}
  for name, term in (('generator', 'path'), ('discriminator', 'r1')):
    settings = gan.lazy(base, config.interval[term]) if config.loss[term] else base
    adam = optax.scale_by_adam(settings.b1, settings.b2, eps=1e-8)
    rate = functools.partial(_constant, settings.learning_rate)
    by_name[name] = state_lib.Optimizer((name,), adam, rate)
  return by_name


def _constant(value, step):
  del step
  return value


def make(config: ml_collections.ConfigDict) -> state_lib.TrainStep:
  """Creates the training step of StyleGAN2.

  Batches are `{'image'}`, uint8 `[B, size, size, 3]`; nothing is frozen. `TrainState.stats` has the
  constant noise of the generator (`noise`), the running means of W (`w_mean`) and of path lengths
  (`path_mean`), and the latest values of the lazy terms (`last`), which are logged in every step.

  Args:
    config: `model.{size, channel_multiplier, max_channels, style_dim, mapping_depth}`,
      `loss.{r1, path}` (terms with weight 0 are not computed), `interval.{r1, path}`,
      `optimizer.{learning_rate, b1, b2, ema_decay}`, `style_mixing`, `path_shrink`, `augment`,
      `seed`.
  """
  objectives = make_objectives(config)
  optimizers_ = make_optimizers(config)

  def init(key):
    keys = jax.random.split(key)
    generator, discriminator = objectives.generator, objectives.discriminator
    variables = generator.init(keys[0], jnp.zeros((1, generator.style_dim)))
    dummy = jnp.zeros((1, generator.size, generator.size, 3))
    params = {
      'generator': variables['params'],
      'discriminator': discriminator.init(keys[1], dummy)['params'],
    }
    stats = {'noise': variables['noise'], 'w_mean': jnp.zeros(generator.style_dim)}
    last = {}
    if config.loss.path:
      stats['path_mean'] = jnp.zeros([])
      last |= {'path': jnp.zeros([]), 'path_length': jnp.zeros([])}
    if config.loss.r1:
      last['r1'] = jnp.zeros([])
    return state_lib.create(params, optimizers_, ('generator',), stats={**stats, 'last': last})

  def update_r1(real, keys, state):
    def objective(params):
      penalty = objectives.r1(params['discriminator'], real, keys)
      return config.loss.r1 / 2 * config.interval.r1 * penalty, penalty

    grads, penalty = _gradient(objective, state, 'discriminator')
    state = state_lib.update(state, 'discriminator', optimizers_['discriminator'], grads)
    return _remember(state, r1=penalty)

  def update_path(draws, state):
    def objective(params):
      mean = state.stats['path_mean']
      penalty, aux = objectives.path(params['generator'], draws.path, draws.pixels, mean)
      return config.loss.path * config.interval.path * penalty, (penalty, *aux)

    grads, (penalty, mean, length) = _gradient(objective, state, 'generator')
    state = state_lib.update(state, 'generator', optimizers_['generator'], grads)
    state = state.replace(stats={**state.stats, 'path_mean': mean})
    return _remember(state, path=penalty, path_length=length)

  def train_step(state, batch, frozen):
    del frozen
    real = images.to_float(batch['image'])
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    draws = objectives.draw(key, len(real))
    w_plus, _ = objectives.styles(state.params['generator'], draws.discriminator)
    fake = objectives.synthesize(state.params['generator'], w_plus, draws.discriminator)

    def discriminator_objective(params):
      loss, logits = objectives.discriminator_loss(
        params['discriminator'], real, fake, draws.augment
      )
      return loss, (loss, *logits)

    step = state.step
    grads, (loss_d, real_logit, fake_logit) = _gradient(
      discriminator_objective, state, 'discriminator'
    )
    state = state_lib.update(state, 'discriminator', optimizers_['discriminator'], grads)
    if config.loss.r1:
      update = functools.partial(update_r1, real, draws.augment)
      state = jax.lax.cond(step % config.interval.r1 == 0, update, lambda state: state, state)
    judge = state.params['discriminator']

    def generator_objective(params):
      loss, w = objectives.generator_loss(
        params['generator'], judge, draws.generator, draws.augment
      )
      return loss, (loss, w)

    grads, (loss_g, w) = _gradient(generator_objective, state, 'generator')
    state = state_lib.update(state, 'generator', optimizers_['generator'], grads)
    if config.loss.path:
      update = functools.partial(update_path, draws)
      state = jax.lax.cond(step % config.interval.path == 0, update, lambda state: state, state)
    w_mean = optimizers.ema_update(
      state.stats['w_mean'], w, optimizers.ema_decay(step, W_MEAN_DECAY)
    )
    state = state_lib.finish(state, config.optimizer.ema_decay, {**state.stats, 'w_mean': w_mean})
    metrics = {
      'loss_discriminator': loss_d,
      'loss_generator': loss_g,
      'logit_real': real_logit,
      'logit_fake': fake_logit,
      **state.stats['last'],
    }
    return state, metrics

  return state_lib.TrainStep(init, train_step)


def _gradient(objective, state, network):
  """Gradients of an objective for the parameters of one network, and its other results."""
  return jax.grad(objective, has_aux=True)({network: state.params[network]})


def _remember(state, **terms):
  """Stores the values of lazy terms for steps that do not compute them."""
  return state.replace(stats={**state.stats, 'last': {**state.stats['last'], **terms}})
