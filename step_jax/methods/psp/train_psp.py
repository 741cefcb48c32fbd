"""Training step of pSp: an encoder into W+, through a generator that is frozen by default."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from step_jax import images, losses, models
from step_jax.methods.psp import generator as generator_lib
from step_jax.methods.psp import losses as psp_losses
from step_jax.methods.psp import networks, resizing
from step_jax.methods.psp.generator import Generator
from step_jax.methods.psp.irse import FaceEmbedding
from step_jax.methods.psp.ranger import ranger
from step_jax.methods.psp.resnet import ResNet50
from step_jax.train import state as state_lib

TERMS = (*('l2', 'l1', 'lpips', 'identity', 'moco', 'l2_crop', 'lpips_crop', 'w_norm', 'mixing'),)


def to_input(source: jax.Array, task: str, channels: int) -> jax.Array:
  """Input of the encoder for a task, float32 `[B, H, W, C]`.

  Args:
    source: integers `[B, H, W]` for `segmentation`, uint8 `[B, H, W, 1]` for `sketch`, else uint8
      `[B, H, W, 3]`.
    task: of `presets`.
    channels: C; the number of classes for `segmentation`.

  Returns:
    One-hot classes, a sketch in [0, 1], or an image in [-1, 1].
  """
  if task == 'segmentation':
    return jax.nn.one_hot(source, channels)
  if task == 'sketch':
    return source.astype(jnp.float32) / 255
  return images.to_float(source)


@dataclasses.dataclass(frozen=True)
class Objectives:
  """The losses of pSp as a function of the parameters.

  Attributes:
    config: see `make`.
    encoder: images to styles.
    generator: styles to images.
    features: feature network of LPIPS; None if no term needs it.
    identity: face embeddings; None if no term needs it.
    moco: ResNet-50; None if no term needs it.
  """

  config: ml_collections.ConfigDict
  encoder: nn.Module
  generator: Generator
  features: models.FeatureNet | None = None
  identity: FaceEmbedding | None = None
  moco: ResNet50 | None = None

  def encode(
    self, params: Mapping, stats: Mapping, mean: jax.Array, inputs: jax.Array, train: bool
  ) -> tuple[jax.Array, Mapping]:
    """Styles of images, and the new statistics of batch norm.

    Args:
      params: parameters of the encoder.
      stats: its collection `batch_stats`.
      mean: the mean style, `[D]` or `[n, D]`.
      inputs: `[B, H, W, C]`, see `to_input`.
      train: whether batch norm uses the batch and updates its statistics.

    Returns:
      `[B, n, D]`, and the collection.
    """
    styles, moved = self.encoder.apply(
      {'params': params, 'batch_stats': stats}, inputs, train=train, mutable=['batch_stats']
    )
    styles = generator_lib.broadcast(styles, self.generator.num_styles)
    if self.config.start_from_mean:
      styles = styles + mean
    return styles, moved['batch_stats']

  def terms(
    self,
    styles: jax.Array,
    output: jax.Array,
    mixed: jax.Array | None,
    mean: jax.Array,
    batch: Mapping[str, jax.Array],
    frozen: Mapping[str, Any],
  ) -> dict[str, jax.Array]:
    """Loss terms with a weight above zero, scalars.

    Args:
      styles: `[B, n, D]`.
      output: images generated from them.
      mixed: images generated from styles mixed within the batch; None without the term `mixing`.
      mean: the mean style.
      batch: see `make`.
      frozen: see `make`.
    """
    target = images.to_float(batch['target'])
    output = resizing.adaptive_pool(output, target.shape[1])
    mean = mean if self.config.start_from_mean else 0.0

    def lpips(x, y):
      taps = [self.features.apply({'params': frozen['features']}, z) for z in (x, y)]
      return jnp.mean(losses.lpips(*taps, frozen['heads']))

    def cropped(distance):
      return distance(*(psp_losses.face_crop(x) for x in (output, target)))

    def similarity(features, embed):
      return psp_losses.similarity_loss(features(embed, output), features(embed, target))

    def identity():
      if 'mask' in batch:
        return psp_losses.masked_l1(output, target, batch['mask'].astype(jnp.float32) / 255)
      embed = lambda x: self.identity.apply(frozen['identity'], x)
      return similarity(psp_losses.identity_features, embed)

    formulas = {
      'l2': lambda: psp_losses.squared_error(output, target),
      'l1': lambda: losses.l1_loss(output, target),
      'lpips': lambda: lpips(output, target),
      'identity': identity,
      'moco': lambda: similarity(
        psp_losses.moco_features, lambda x: self.moco.apply(frozen['moco'], x, train=False)
      ),
      'l2_crop': lambda: cropped(psp_losses.squared_error),
      'lpips_crop': lambda: cropped(lpips),
      'w_norm': lambda: psp_losses.w_norm(styles, mean),
      'mixing': lambda: losses.l1_loss(output, resizing.adaptive_pool(mixed, target.shape[1])),
    }
    return {name: formulas[name]() for name in TERMS if self.config.loss[name] > 0}

  def loss(
    self,
    params: Mapping,
    stats: Mapping,
    batch: Mapping[str, jax.Array],
    frozen: Mapping[str, Any],
    key: jax.Array | None,
    train: bool = True,
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Mapping]]:
    """The weighted sum of the terms, a scalar; the terms; and the encoder's new statistics.

    Args:
      params: parameters of encoder and generator.
      stats: `TrainState.stats`, see `make`.
      batch: see `make`.
      frozen: see `make`.
      key: random key of the generator's noise and of style mixing; None: constant noise, for
        validation.
      train: whether batch norm uses the batch.
    """
    inputs = to_input(batch['source'], self.config.task, networks.input_channels(self.config))
    mean = stats['mean_style']
    styles, moved = self.encode(params['encoder'], stats['encoder'], mean, inputs, train)
    variables = {'params': params['generator'], 'noise': stats['noise']}
    noise_key, mixing_key = jax.random.split(jax.random.key(0) if key is None else key)
    noise = None
    if key is not None:
      noise = generator_lib.random_noise(noise_key, len(styles), self.generator.size)

    def synthesize(styles):
      return self.generator.apply(variables, styles, noise, method='synthesize')

    mixed = None
    if self.config.loss.mixing > 0:
      mixed = synthesize(mix_within_batch(mixing_key, styles))
    terms = self.terms(styles, synthesize(styles), mixed, mean, batch, frozen)
    total = sum(self.config.loss[name] * term for name, term in terms.items())
    return total, (terms, moved)


def mix_within_batch(key: jax.Array, styles: jax.Array) -> jax.Array:
  """Styles with a random half of the layers from another image of the batch, `[B, n, D]`."""
  chosen = jax.random.bernoulli(key, 0.5, (styles.shape[1], 1))
  return jnp.where(chosen, jnp.roll(styles, 1, axis=0), styles)


def make(objectives: Objectives) -> state_lib.TrainStep:
  """Creates the training step of pSp.

  Batches are `{'source', 'target'}`: targets uint8 `[B, S, S, 3]`, sources for `to_input`; and
  optionally `mask`, uint8 `[B, S, S, 1]`, which makes the identity term a masked difference.
  `frozen` has, for the terms that need them, `features` and `heads` of LPIPS and the variables
  `identity` and `moco`. `TrainState.params` are those of `encoder` and `generator`; the generator
  is frozen unless `train_generator` is set. `TrainState.stats` has the statistics of batch norm
  (`encoder`), the constant noise of the generator (`noise`) and the mean style (`mean_style`).

  Args:
    objectives: its `config` has `loss.NAME` for the names in `TERMS` (terms with weight 0 are not
      computed), `task`, `data.classes`, `start_from_mean`, `train_generator`,
      `optimizer.{name, learning_rate}` with the name `ranger` or `adam`, and `seed`.

  Raises:
    ValueError: a term has no network, or both kinds of similarity are used.
  """
  config = objectives.config
  needed = {'identity': objectives.identity, 'moco': objectives.moco}
  needed |= dict.fromkeys(('lpips', 'lpips_crop'), objectives.features)
  if config.loss.identity > 0 and config.loss.moco > 0:
    raise ValueError('loss.identity and loss.moco exclude each other; set one of them to 0')
  for name, net in needed.items():
    if config.loss[name] > 0 and net is None and name != 'identity':
      raise ValueError(f'loss.{name} needs a network; give its weights or set it to 0')
  trained = ('encoder', 'generator') if config.train_generator else ('encoder',)
  rate = config.optimizer.learning_rate
  if config.optimizer.name == 'ranger':
    optimizer = state_lib.Optimizer(trained, ranger(rate), lambda step: 1.0)
  else:
    optimizer = state_lib.Optimizer(trained, optax.scale_by_adam(), lambda step: rate)
  optimizers_ = {'encoder': optimizer}

  def init(key):
    """A new state; its untrained generator is replaced by a warm start."""
    size, channels = objectives.encoder.size, networks.input_channels(config)
    encoder = objectives.encoder.init(key, jnp.zeros((1, size, size, channels)), train=False)
    z = jnp.zeros((1, objectives.generator.style_dim))
    generator = objectives.generator.init(key, z)
    return state_lib.create(
      {'encoder': encoder['params'], 'generator': generator['params']},
      optimizers_,
      stats={
        'encoder': encoder['batch_stats'],
        'noise': generator['noise'],
        'mean_style': jnp.zeros(objectives.generator.style_dim),
      },
    )

  def train_step(state, batch, frozen):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    objective = lambda params: objectives.loss(
      {**state.params, **params}, state.stats, batch, frozen, key
    )
    value_and_grad = jax.value_and_grad(objective, has_aux=True)
    (total, (terms, moved)), grads = value_and_grad({name: state.params[name] for name in trained})
    state = state_lib.update(state, 'encoder', optimizer, grads)
    stats = {**state.stats, 'encoder': moved}
    return state_lib.finish(state, stats=stats), {'loss': total, **terms}

  return state_lib.TrainStep(init, train_step)
