"""Stages 2 and 3: trains the generator, with the style encoder frozen or trained together.

StEP and all baselines of its paper use the same step with different loss weights
(`configs/translate.py`). As in the original, the generator has two objectives, each with its own
optimizer: `generator` (reconstruction, GAN, regularisation; updates the generator and, unless it is
frozen, the style encoder) and `latent` (terms on random and recovered codes; updates only the
generator, with its own learning rate).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import jax
import jax.numpy as jnp
import ml_collections

from step_jax import images, losses, models, weights
from step_jax.methods.step import models as nets
from step_jax.methods.step import networks
from step_jax.methods.step.models import style_encoder
from step_jax.methods.step.steps import terms as terms_lib
from step_jax.methods.step.steps.plan import Plan
from step_jax.train import optimizers
from step_jax.train import state as state_lib


def interleave(parts: Sequence[jax.Array]) -> jax.Array:
  """Interleaves arrays `[B, …]` to one array `[B * len(parts), …]`.

  Networks then get one large batch. Entries with the same index stay together, so sharded batches
  need no communication.
  """
  # -1 for the first axis would fail for codes of length zero.
  size, *rest = parts[0].shape
  return jnp.stack(parts, axis=1).reshape(size * len(parts), *rest)


def separate(x: jax.Array, count: int) -> list[jax.Array]:
  """Inverse of `interleave`."""
  x = x.reshape(x.shape[0] // count, count, *x.shape[1:])
  return [x[:, i] for i in range(count)]


def draw_noise(key: jax.Array, batch_size: int, z_dim: int) -> dict[str, jax.Array]:
  """Samples all random numbers of a step from N(0, I).

  Returns `codes` and `read_back`, `[2, B, Z]`, and `random`, `[B, Z]`.
  """
  keys = jax.random.split(key, 3)
  pair = (2, batch_size, z_dim)
  return {
    'codes': jax.random.normal(keys[0], pair),
    'read_back': jax.random.normal(keys[1], pair),
    'random': jax.random.normal(keys[2], pair[1:]),
  }


@dataclasses.dataclass(frozen=True)
class Objectives:
  """The losses of stages 2 and 3, and their gradients.

  Attributes:
    plan: active terms.
    encoder, generator, discriminator: the modules.
    features: feature network of the perceptual losses, or None.
    tap_weights: its taps and their weights.
    forms: the adversarial losses.
    r1: weight of R1; 0: it is not computed.
  """

  plan: Plan
  encoder: nets.StyleEncoder
  generator: nets.Generator
  discriminator: nets.MultiScaleDiscriminator
  features: models.FeatureNet | None
  tap_weights: Mapping[str, float]
  forms: losses.Adversarial = losses.ADVERSARIAL['least_squares']
  r1: float = 0.0

  @property
  def num_pairs(self) -> int:
    """Number of pairs in a batch: two if styles are swapped."""
    return 2 if self.plan.cycle else 1

  def read(self, batch: Mapping[str, jax.Array], role: str) -> jax.Array:
    """The sources or targets of a batch as floats; those of two pairs are interleaved."""
    names = (role, f'{role}_b')[: self.num_pairs]
    return interleave([images.to_float(batch[name]) for name in names])

  def outputs(
    self, params: Mapping, sources: jax.Array, targets: jax.Array, noise: Mapping, frozen: Mapping
  ) -> terms_lib.Outputs:
    """All images and codes that losses may use; the compiler removes unused ones."""
    count, variational = self.num_pairs, self.plan.variational

    def encode(pictures, eps):
      z, mean, logvar = self.encoder.apply({'params': params['style_encoder']}, pictures)
      return (style_encoder.sample(mean, logvar, eps) if variational else z), mean, logvar

    def generate(*args, method):
      return self.generator.apply({'params': params['generator']}, *args, method=method)

    contents = generate(sources, method='encode')
    codes = encode(targets, interleave(noise['codes'][:count]))
    fakes = {'direct': generate(contents, codes[0], method='decode')}
    read_back = drawn = random_codes = None
    if self.plan.cycle:
      # The first source gets the second style, and the second source the first style. Swapping back
      # puts the recovered codes at the pair whose style they should have.
      swap = lambda x: interleave(separate(x, count)[::-1])
      fakes['swap'] = generate(contents, swap(codes[0]), method='decode')
      read_back = encode(swap(fakes['swap']), interleave(noise['read_back']))[0]
      fakes['cycle'] = generate(contents, read_back, method='decode')
    if self.plan.random:
      drawn = interleave([noise['random']] * count)
      fakes['random'] = generate(contents, drawn, method='decode')
      random_codes = encode(fakes['random'], 1.0)[1 if variational else 0]

    def perceptual(kind):
      taps = [
        self.features.apply({'params': frozen['features']}, x) for x in (fakes[kind], targets)
      ]
      return losses.perceptual_loss(*taps, self.tap_weights)

    adversarial = self.adversarial(params, sources, fakes)
    return terms_lib.Outputs(
      count, targets, codes, read_back, drawn, random_codes, fakes, perceptual, adversarial
    )

  def judge(
    self,
    params: Mapping,
    sources: jax.Array,
    batches: Sequence[jax.Array],
    loss: Callable[[Sequence[jax.Array]], jax.Array],
  ) -> list[jax.Array]:
    """Losses of a discriminator, in one pass.

    Args:
      params: parameters of the discriminator.
      sources: `[B * P, H, W, C]` of P interleaved pairs.
      batches: images with the shape of `sources`; each batch and pair is a separate mini-batch.
      loss: a form of `losses.Adversarial`.

    Returns:
      One scalar per batch and pair.
    """
    count = self.num_pairs
    groups = count * len(batches)
    pictures = interleave([part for x in batches for part in separate(x, count)])
    conditions = interleave(separate(sources, count) * len(batches))
    scales = self.discriminator.apply({'params': params}, pictures, conditions, groups)
    return [
      loss(list(logits))
      for logits in zip(*(separate(scale, groups) for scale in scales), strict=True)
    ]

  def judge_fakes(
    self,
    name: str,
    params: Mapping,
    sources: jax.Array,
    fakes: Mapping,
    loss: Callable[[Sequence[jax.Array]], jax.Array],
  ) -> dict[str, list[jax.Array]]:
    """Kind of generated image -> weighted losses of one discriminator, one per pair."""
    weights = self.plan.judged(name)
    terms = self.judge(params, sources, [fakes[kind] for kind in weights], loss)
    count = self.num_pairs
    return {
      kind: [weight * term for term in terms[i * count : (i + 1) * count]]
      for i, (kind, weight) in enumerate(weights.items())
    }

  def adversarial(
    self, params: Mapping, sources: jax.Array, fakes: Mapping
  ) -> dict[str, jax.Array]:
    """Adversarial losses of generated images for `generator` and `latent`.

    `latent` has images of random codes, and swapped images if codes are recovered from them.
    """
    if not self.plan.on('gan'):
      return {}
    latent_kinds = ('random', 'swap') if self.plan.on('z_recon') else ('random',)
    terms_of = {'generator': [], 'latent': []}
    for name in self.plan.discriminators:
      judged = self.judge_fakes(name, params[name], sources, fakes, self.forms.generator)
      for kind, terms in judged.items():
        terms_of['latent' if kind in latent_kinds else 'generator'] += terms
    return {name: losses.average_with_zero(terms) for name, terms in terms_of.items() if terms}

  def r1_penalty(self, params: Mapping, sources: jax.Array, targets: jax.Array) -> jax.Array:
    """R1 of a discriminator at targets `[B * P, H, W, 3]`: of the mean logits, summed over scales.

    Each of the P interleaved pairs is a separate mini-batch.
    """

    def score(images):
      scales = self.discriminator.apply({'params': params}, images, sources, self.num_pairs)
      return sum(jnp.mean(logits, axis=(1, 2, 3)) for logits in scales)

    return losses.r1_penalty(score, targets)

  def gradients(
    self, params: Mapping, trained: tuple[str, ...], batch: Mapping, frozen: Mapping, noise: Mapping
  ) -> tuple[dict[str, dict], state_lib.Metrics]:
    """Gradients of all objectives at one point, from one forward pass of the generator.

    Args:
      params: network -> parameters.
      trained: networks that the `generator` objective trains.
      batch: see `make`.
      frozen: `{'features': parameters of the feature net}`.
      noise: see `draw_noise`.

    Returns:
      Name of the objective (`generator`, `latent`, the discriminators) -> network -> gradients; and
      all terms and totals.
    """
    sources, targets = self.read(batch, 'source'), self.read(batch, 'target')

    def gradient(name, networks_):
      """Gradients of the weighted sum of the terms of an objective.

      Each objective is differentiated separately, with respect to its own networks; the compiler
      merges the identical forward passes.
      """

      def objective(own):
        outputs = self.outputs({**params, **own}, sources, targets, noise, frozen)
        terms = terms_lib.evaluate(terms_lib.TRANSLATE, self.plan.weights, outputs)
        summed = {k: term for k, term in terms.items() if terms_lib.OBJECTIVES[k] == name}
        total = networks.weighted_sum(self.plan.weights, summed)
        return total, (total, terms, outputs.fakes)

      return jax.grad(objective, has_aux=True)({net: params[net] for net in networks_})

    grads = {}
    grads['generator'], (total, metrics, fakes) = gradient('generator', trained)
    metrics |= {'loss_generator': total}
    if self.plan.latent:
      grads['latent'], (total, _, _) = gradient('latent', ('generator',))
      metrics |= {'loss_latent': total}

    fakes = jax.lax.stop_gradient(fakes)
    for name in self.plan.discriminators:

      def objective(own, name=name):
        real = self.judge(own[name], sources, [targets], self.forms.real)
        judged = self.judge_fakes(name, own[name], sources, fakes, self.forms.fake)
        fake = [loss for terms in judged.values() for loss in terms]
        terms = {'real': losses.average_with_zero(real), 'fake': losses.average_with_zero(fake)}
        total = sum(terms.values())
        if self.r1:
          terms['r1'] = self.r1_penalty(own[name], sources, targets)
          total += self.r1 / 2 * terms['r1']
        return total, {f'loss_{name}': total, **{f'{name}_{k}': v for k, v in terms.items()}}

      grads[name], of_discriminator = jax.grad(objective, has_aux=True)({name: params[name]})
      metrics |= of_discriminator
    return grads, metrics


def make(
  config: ml_collections.ConfigDict, features: models.FeatureNet | None = None
) -> state_lib.TrainStep:
  """Creates the training step of stages 2 and 3 and of all baselines.

  Batches are `{'source', 'target'}`, uint8 `[B, H, W, 3]`, and, if styles are swapped
  (`Plan.cycle`), a second pair `{'source_b', 'target_b'}`. `frozen['features']` are the parameters
  of `features`.

  Args:
    config: see `configs/translate.py`.
    features: feature network of the perceptual losses; None if their weights are zero.
  """
  objectives = make_objectives(config, features)
  optimizers_ = make_optimizers(config, objectives.plan)
  z_dim = config.model.z_dim
  averaged = ('style_encoder', 'generator')

  def init(key):
    keys = jax.random.split(key, 4)
    params = {
      'style_encoder': networks.init_style_encoder(objectives.encoder, keys[0]),
      'generator': networks.init_generator(objectives.generator, keys[1], z_dim),
    }
    for name, name_key in zip(objectives.plan.discriminators, keys[2:], strict=False):
      params[name] = networks.init_discriminator(objectives.discriminator, name_key)
    return state_lib.create(params, optimizers_, averaged)

  def train_step(state, batch, frozen):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    noise = draw_noise(key, len(batch['source']), z_dim)
    trained = optimizers_['generator'].networks
    decay = optimizers.ema_decay(state.step, config.ema_decay)
    grads, metrics = objectives.gradients(state.params, trained, batch, frozen, noise)
    metrics |= state_lib.gradient_norms(grads)
    return state_lib.apply_gradients(state, optimizers_, grads, decay), metrics

  return state_lib.TrainStep(init, train_step)


def make_objectives(
  config: ml_collections.ConfigDict, features: models.FeatureNet | None = None
) -> Objectives:
  """Creates the objectives of a configuration; see `make` for the arguments."""
  return Objectives(
    plan=Plan.of(config),
    encoder=networks.style_encoder(config),
    generator=networks.generator(config),
    discriminator=networks.discriminator(config),
    # Its parameters and the losses stay float32.
    features=features and features.clone(dtype=jnp.dtype(config.dtype)),
    tap_weights=weights.tap_weights(config.features),
    forms=losses.ADVERSARIAL[config.loss.adversarial],
    r1=config.loss.r1,
  )


def make_optimizers(
  config: ml_collections.ConfigDict, plan: Plan
) -> dict[str, state_lib.Optimizer]:
  """One Adam optimizer per objective: `generator`, `latent` if active, and each discriminator."""
  rates = config.optimizer
  adam = optimizers.scale_by_tf_adam(rates.b1, rates.b2)
  trained = ('generator', 'style_encoder') if plan.train_encoder else ('generator',)

  def optimizer(nets, rate):
    return state_lib.Optimizer(nets, adam, optimizers.schedule(config, rate))

  optimizers_ = {'generator': optimizer(trained, rates.generator_lr)}
  if plan.latent:
    optimizers_['latent'] = optimizer(('generator',), rates.latent_lr)
  for name in plan.discriminators:
    optimizers_[name] = optimizer((name,), rates.discriminator_lr)
  return optimizers_
