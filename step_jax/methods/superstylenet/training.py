"""Training step of SuperStyleNet: the generator, then the discriminator on new generated images."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from step_jax import images, losses
from step_jax.methods.superstylenet import one_draw
from step_jax.methods.superstylenet.discriminator import Discriminator
from step_jax.methods.superstylenet.generator import Generator, draw_noise
from step_jax.models.features import PIXEL_STD, FeatureNet
from step_jax.train import optimizers
from step_jax.train import state as state_lib

STATS = ('batch_stats', 'spectral')
# The original uses VGG19.
TAP_WEIGHTS = {
  'conv1_1': 1 / 32,
  'conv2_1': 1 / 16,
  'conv3_1': 1 / 8,
  'conv4_1': 1 / 4,
  'conv5_1': 1.0,
}
WEIGHTS = {'gan': 1.0, 'feature_matching': 10.0, 'perceptual': 10.0}
LEARNING_RATES = {'generator': 1e-4, 'discriminator': 4e-4}
# Name of the statistics of the averaged generator.
AVERAGED = 'averaged_generator'
Stats = dict[str, Any]


def network_codes(codes: jax.Array) -> jax.Array:
  """Scales raw codes, about [0, 1], to the input range of the networks: `2 code - 1`, `[B, L, C]`.

  Regions without a code, with raw codes of zeros, get the code of black, as in the original.
  """
  return (codes - 0.5) / 0.5


@dataclasses.dataclass(frozen=True)
class Objectives:
  """The losses of both networks.

  Attributes:
    generator, discriminator: the modules.
    weights: term -> weight, for `gan`, `feature_matching` and `perceptual`; a term is computed only
      if its weight is above zero.
    features: feature network of the perceptual loss, or None.
    tap_weights: its taps and their weights.
  """

  generator: Generator
  discriminator: Discriminator
  weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(WEIGHTS))
  features: FeatureNet | None = None
  tap_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(TAP_WEIGHTS))

  def generate(
    self, params: Mapping, stats: Mapping, labels: jax.Array, codes: jax.Array, noise: Any
  ) -> tuple[jax.Array, Stats]:
    """Generates images in training, `[B, H, W, 3]`; also returns the new statistics."""
    variables = {'params': params, **stats}
    return self.generator.apply(variables, labels, codes, noise, True, mutable=STATS)

  def judge(
    self, params: Mapping, stats: Mapping, labels: jax.Array, fake: jax.Array, real: jax.Array
  ) -> tuple[list, list, Stats]:
    """Judges generated and real images in one pass.

    Returns:
      The feature maps of the generated and of the real images, and the new statistics.
    """
    # Interleaved, so that sharded batches need no communication.
    pairs = jnp.stack([fake, real], axis=1).reshape(-1, *fake.shape[1:])
    scales, stats = self.discriminator.apply(
      {'params': params, **stats}, jnp.repeat(labels, 2, axis=0), pairs, True, mutable=STATS
    )
    of = lambda i: [[x.reshape(-1, 2, *x.shape[1:])[:, i] for x in scale] for scale in scales]
    return of(0), of(1), stats

  def generator_terms(
    self, fake: jax.Array, real: jax.Array, judged: tuple[list, list], frozen: Mapping
  ) -> dict[str, jax.Array]:
    """Active terms of the loss of the generator, without weights."""

    def perceptual():
      taps = [self.features.apply({'params': frozen['features']}, x) for x in (fake, real)]
      # Feature networks are stored with activations in units of pixels.
      return losses.perceptual_l1(*taps, self.tap_weights) / PIXEL_STD

    formulas = {
      'gan': lambda: losses.hinge_generator_loss(judged[0]),
      'feature_matching': lambda: losses.feature_matching_loss(*judged),
      'perceptual': perceptual,
    }
    return {name: formula() for name, formula in formulas.items() if self.weights[name] > 0}

  def generator_gradients(
    self,
    params: Mapping,
    stats: Mapping,
    batch: Mapping[str, jax.Array],
    noise: Any,
    frozen: Mapping,
  ) -> tuple[dict, Stats, dict[str, jax.Array]]:
    """Gradients of the generator's loss.

    Args:
      params, stats: network -> parameters, statistics.
      batch: `labels` int `[B, H, W]`, `codes` from `network_codes`, `image` in [-1, 1].
      noise: see `Generator`.
      frozen: `{'features': parameters of the feature network}`.

    Returns:
      Gradients, statistics of both networks, and the terms.
    """

    def objective(own):
      fake, of_generator = self.generate(
        own, stats['generator'], batch['labels'], batch['codes'], noise
      )
      *judged, of_discriminator = self.judge(
        params['discriminator'], stats['discriminator'], batch['labels'], fake, batch['image']
      )
      terms = self.generator_terms(fake, batch['image'], judged, frozen)
      total = sum(self.weights[name] * term for name, term in terms.items())
      moved = {'generator': of_generator, 'discriminator': of_discriminator}
      return total, (moved, {**terms, 'loss_generator': total})

    grads, (moved, metrics) = jax.grad(objective, has_aux=True)(params['generator'])
    return grads, moved, metrics

  def discriminator_gradients(
    self, params: Mapping, stats: Mapping, batch: Mapping[str, jax.Array], noise: Any
  ) -> tuple[dict, Stats, dict[str, jax.Array]]:
    """Gradients of the discriminator's loss on new images; arguments: see `generator_gradients`."""
    fake, of_generator = self.generate(
      params['generator'], stats['generator'], batch['labels'], batch['codes'], noise
    )

    def objective(own):
      *judged, of_discriminator = self.judge(
        own, stats['discriminator'], batch['labels'], fake, batch['image']
      )
      on_fake, on_real = losses.hinge_discriminator_loss(*judged)
      metrics = {'discriminator_fake': on_fake, 'discriminator_real': on_real}
      total = on_fake + on_real
      return total, (of_discriminator, {**metrics, 'loss_discriminator': total})

    grads, (moved, metrics) = jax.grad(objective, has_aux=True)(params['discriminator'])
    return grads, {'generator': of_generator, 'discriminator': moved}, metrics


@dataclasses.dataclass(frozen=True)
class Trainer:
  """The training step and its initial state.

  Attributes:
    objectives: the losses.
    learning_rates: network -> (step number -> learning rate); constant in the original.
    b1, b2: decay rates of Adam.
    ema_decay: decay rate of the moving averages of parameters and statistics of the generator; 0,
      as in the original: no averages.
    seed: seed of the noise.
  """

  objectives: Objectives
  learning_rates: Mapping[str, Callable[[jax.Array], jax.Array]] = dataclasses.field(
    default_factory=lambda: {k: optax.constant_schedule(r) for k, r in LEARNING_RATES.items()}
  )
  b1: float = 0.0
  b2: float = 0.9
  ema_decay: float = 0.0
  seed: int = 0

  @property
  def optimizers(self) -> dict[str, state_lib.Optimizer]:
    """One Adam optimizer per network."""
    transform = optimizers.scale_by_torch_adam(self.b1, self.b2)
    return {
      name: state_lib.Optimizer((name,), transform, rate)
      for name, rate in self.learning_rates.items()
    }

  def init(self, key: jax.Array) -> state_lib.TrainState:
    """The state at step 0."""
    return one_draw.from_one_draw(self._init)(key)

  def _init(self, key):
    generator, discriminator = self.objectives.generator, self.objectives.discriminator
    keys = jax.random.split(key)
    size = 2**generator.num_upsamplings
    labels = jnp.zeros((1, size, size), jnp.int32)
    codes = jnp.zeros((1, generator.num_labels, generator.style_size))
    # Parameters do not depend on the size of images.
    image = jnp.zeros((1, 16, 16, 3))
    variables = {
      'generator': generator.init(keys[0], labels, codes),
      'discriminator': discriminator.init(keys[1], jnp.zeros((1, 16, 16), jnp.int32), image),
    }
    params = {name: own['params'] for name, own in variables.items()}
    return self.create(
      params, {name: {k: own[k] for k in STATS if k in own} for name, own in variables.items()}
    )

  def create(self, params: Mapping, stats: Mapping) -> state_lib.TrainState:
    """Creates a state at step 0 from parameters and statistics, network -> tree."""
    averaged = ('generator',) if self.ema_decay else ()
    if averaged:
      stats = {**stats, AVERAGED: jax.tree.map(jnp.copy, stats['generator'])}
    return state_lib.create(params, self.optimizers, averaged, stats=dict(stats))

  def train_step(
    self, state: state_lib.TrainState, batch: Mapping, frozen: Mapping
  ) -> tuple[state_lib.TrainState, state_lib.Metrics]:
    """One step of both networks.

    Args:
      state: state before the step.
      batch: `image` uint8 `[B, H, W, 3]`, `labels` int `[B, H, W]`, `codes` float32 `[B, L, C]`,
        raw; zeros for regions without a code.
      frozen: `{'features': parameters of the feature network}`; empty without a perceptual loss.
    """
    key = jax.random.fold_in(jax.random.key(self.seed), state.step)
    size = batch['labels'].shape
    noises = [draw_noise(own, self.objectives.generator, *size) for own in jax.random.split(key)]
    batch = {
      'labels': batch['labels'].astype(jnp.int32),
      'codes': network_codes(batch['codes']),
      'image': images.to_float(batch['image']),
    }
    return self.step_on(state, batch, noises, frozen)

  def step_on(
    self, state: state_lib.TrainState, batch: Mapping, noises: Any, frozen: Mapping
  ) -> tuple[state_lib.TrainState, state_lib.Metrics]:
    """`train_step` on scaled inputs of the networks.

    Every pass updates the statistics of a network, so those of both are updated twice.

    Args:
      state: state before the step.
      batch: see `Objectives.generator_gradients`.
      noises: noise of the generator's and of the discriminator's update; None: no noise.
      frozen: see `train_step`.
    """
    objectives, optimizers_ = self.objectives, self.optimizers
    before = state.stats.get(AVERAGED)
    grads, stats, metrics = objectives.generator_gradients(
      state.params, state.stats, batch, noises[0], frozen
    )
    state = state_lib.update(state, 'generator', optimizers_['generator'], {'generator': grads})
    grads, stats, judged = objectives.discriminator_gradients(state.params, stats, batch, noises[1])
    state = state_lib.update(
      state, 'discriminator', optimizers_['discriminator'], {'discriminator': grads}
    )
    decay = optimizers.ema_decay(state.step, self.ema_decay)
    if before is not None:
      # Vectors of spectral norm follow the kernels within a few steps, so the averaged kernels use
      # those of the current network. An average of directions would not be a direction.
      averaged = optimizers.ema_update(
        before['batch_stats'], stats['generator']['batch_stats'], decay
      )
      stats[AVERAGED] = {**stats['generator'], 'batch_stats': averaged}
    return state_lib.finish(state, decay, stats), {**metrics, **judged}


def trained_generator(state: state_lib.TrainState) -> dict[str, Any]:
  """Variables of the generator for inference: the averages if there are any."""
  if AVERAGED in state.stats:
    return {'params': state.ema['generator'], **state.stats[AVERAGED]}
  return {'params': state.params['generator'], **state.stats['generator']}
