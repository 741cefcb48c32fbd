"""Stages 2 and 3: the generator learns to translate, the style encoder frozen or trained along.

One step serves StEP and all baselines of its paper: which of them runs is a matter of loss weights
alone (`configs/translate.py`). The generator's objective has two parts, each with an optimiser of
its own, as the original has it: `generator` (reconstruction, GAN, regularisation; moves the
generator and, unless frozen, the style encoder) and `latent` (what drawn and read-back codes say;
moves the generator alone, at a rate of its own).
"""

from collections.abc import Mapping
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from step_jax import images, losses, models
from step_jax.methods import networks, optimizers
from step_jax.methods import state as state_lib
from step_jax.methods.plan import GENERATOR_TERMS, LATENT_TERMS, Plan
from step_jax.models import style_encoder

Pair = tuple[jax.Array, jax.Array]


class Outputs(NamedTuple):
  """What the networks make of a batch; lists go by pair, of which there are one or two.

  Attributes:
    codes: `(z, mean, logvar)` of the targets.
    read_back: codes of the swapped pictures, at the place of the pair whose style they should have.
    random_codes: codes read from the pictures of drawn codes.
    fakes: kind of generated picture -> `(picture, source)`.
  """

  codes: list[tuple[jax.Array, jax.Array, jax.Array]]
  read_back: list[jax.Array]
  random_codes: list[jax.Array]
  fakes: dict[str, list[Pair]]


def draw_noise(key: jax.Array, batch_size: int, z_dim: int) -> dict[str, jax.Array]:
  """Everything random in a step, from N(0, I).

  `codes`, `read_back` `[2, B, Z]`, `random` `[B, Z]`.
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
    plan: which terms exist.
    encoder, generator, discriminator: the modules.
    features: the feature net of the perceptual losses, or None where there are none.
    tap_weights: its taps and how much each counts.
  """

  plan: Plan
  encoder: models.StyleEncoder
  generator: models.Generator
  discriminator: models.MultiScaleDiscriminator
  features: models.FeatureNet | None
  tap_weights: Mapping[str, float]

  def read_pairs(self, batch: Mapping[str, jax.Array]) -> list[Pair]:
    """The pairs `(source, target)` of a batch as floats: one, or two where styles are swapped."""
    suffixes = ('', '_b') if self.plan.cycle else ('',)
    return [
      (images.to_float(batch[f'source{suffix}']), images.to_float(batch[f'target{suffix}']))
      for suffix in suffixes
    ]

  def outputs(self, params: Mapping, pairs: list[Pair], noise: Mapping) -> Outputs:
    """All pictures and codes that the losses may look at; what none does, the compiler drops."""
    variational = self.plan.variational

    def encode(picture, eps):
      z, mean, logvar = self.encoder.apply({'params': params['style_encoder']}, picture)
      return (style_encoder.sample(mean, logvar, eps) if variational else z), mean, logvar

    def generate(*args, method):
      return self.generator.apply({'params': params['generator']}, *args, method=method)

    sources = [source for source, _ in pairs]
    contents = [generate(source, method='encode') for source in sources]

    def decode(codes):
      return [
        (generate(content, z, method='decode'), source)
        for content, z, source in zip(contents, codes, sources, strict=True)
      ]

    codes = [encode(target, eps) for (_, target), eps in zip(pairs, noise['codes'], strict=False)]
    own = [z for z, _, _ in codes]
    fakes = {'direct': decode(own)}
    read_back, random_codes = [], []
    if self.plan.cycle:
      # The first source carries the second style; reversed, each code stands at its pair's place.
      fakes['swap'] = decode(own[::-1])
      swapped = [picture for picture, _ in fakes['swap']][::-1]
      read_back = [
        encode(picture, eps)[0] for picture, eps in zip(swapped, noise['read_back'], strict=True)
      ]
      fakes['cycle'] = decode(read_back)
    if self.plan.random:
      fakes['random'] = decode([noise['random']] * len(pairs))
      which = 1 if variational else 0
      random_codes = [encode(picture, 1.0)[which] for picture, _ in fakes['random']]
    return Outputs(codes, read_back, random_codes, fakes)

  def generator_terms(
    self, outputs: Outputs, pairs: list[Pair], noise: Mapping, frozen: Mapping
  ) -> dict[str, jax.Array]:
    """Terms of reconstruction and of codes, those that exist, each summed over the pairs."""
    own = [z for z, _, _ in outputs.codes]

    def against_targets(loss, kind):
      return [
        loss(picture, target)
        for (picture, _), (_, target) in zip(outputs.fakes[kind], pairs, strict=True)
      ]

    def perceptual(picture, target):
      taps = [self.features.apply({'params': frozen['features']}, x) for x in (picture, target)]
      return losses.perceptual_loss(*taps, self.tap_weights)

    formulas = {
      'recon_perceptual': lambda: against_targets(perceptual, 'direct'),
      'recon_l1': lambda: against_targets(losses.l1_loss, 'direct'),
      'cycle_perceptual': lambda: against_targets(perceptual, 'cycle'),
      'cycle_l1': lambda: against_targets(losses.l1_loss, 'cycle'),
      'z_kl': lambda: [losses.kl_loss(mean, logvar) for _, mean, logvar in outputs.codes],
      'z_l2': lambda: [losses.l2_loss(z) for z in own],
      'z_recon': lambda: [
        losses.l1_loss(x, y) for x, y in zip(outputs.read_back, own, strict=True)
      ],
      'z_random_recon': lambda: [
        losses.l1_loss(z, noise['random']) for z in outputs.random_codes
      ],
    }  # fmt: skip
    return {name: sum(formula()) for name, formula in formulas.items() if self.plan.on(name)}

  def gan_terms(self, params: Mapping, outputs: Outputs) -> dict[str, jax.Array]:
    """How far generated pictures are from being judged real: `gan`, and `gan_latent`.

    The second is of the `latent` objective: pictures of drawn codes, and swapped ones where codes
    are read back from them.
    """
    if not self.plan.on('gan'):
      return {}
    latent_kinds = ('random', 'swap') if self.plan.on('z_recon') else ('random',)
    found = {'gan': [], 'gan_latent': []}
    for name, kind, weight in self.plan.judgements:
      for picture, source in outputs.fakes[kind]:
        logits = self.discriminator.apply({'params': params[name]}, picture, source)
        term = 'gan_latent' if kind in latent_kinds else 'gan'
        found[term].append(weight * losses.lsgan_loss(logits, losses.REAL))
    return {name: losses.average_with_zero(terms) for name, terms in found.items() if terms}

  def discriminator_terms(
    self, name: str, params: Mapping, pairs: list[Pair], fakes: Mapping[str, list[Pair]]
  ) -> tuple[jax.Array, jax.Array]:
    """Losses of one discriminator on real and on generated pictures.

    Each call of it judges pictures of one kind: the mini-batch statistic must not mix them.
    """

    def judge(picture, source, label):
      return losses.lsgan_loss(self.discriminator.apply({'params': params}, picture, source), label)

    real = [judge(target, source, losses.REAL) for source, target in pairs]
    fake = [
      weight * judge(picture, source, losses.FAKE)
      for owner, kind, weight in self.plan.judgements
      if owner == name
      for picture, source in fakes[kind]
    ]
    return losses.average_with_zero(real), losses.average_with_zero(fake)

  def gradients(
    self, params: Mapping, trained: tuple[str, ...], batch: Mapping, frozen: Mapping, noise: Mapping
  ) -> tuple[dict[str, dict], state_lib.Metrics]:
    """Gradients of every objective at one point, from one forward pass of the generator.

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
    pairs = self.read_pairs(batch)
    weights = {**self.plan.weights, 'gan_latent': self.plan.weights['gan']}

    def generator_objectives(trained_params):
      outputs = self.outputs({**params, **trained_params}, pairs, noise)
      terms = self.generator_terms(outputs, pairs, noise, frozen) | self.gan_terms(params, outputs)
      total, latent_total = (
        networks.weighted_sum(weights, {name: terms[name] for name in names if name in terms})
        for names in (GENERATOR_TERMS, LATENT_TERMS)
      )
      return (total, latent_total), (outputs.fakes, terms)

    (total, latent_total), pullback, (fakes, metrics) = jax.vjp(
      generator_objectives, {name: params[name] for name in trained}, has_aux=True
    )
    one, zero = jnp.ones_like(total), jnp.zeros_like(total)
    grads = {'generator': pullback((one, zero))[0]}
    metrics |= {'loss_generator': total}
    if self.plan.latent:
      grads['latent'] = {'generator': pullback((zero, one))[0]['generator']}
      metrics |= {'loss_latent': latent_total}

    fakes = jax.lax.stop_gradient(fakes)
    for name in self.plan.discriminators:

      def objective(own, name=name):
        real, fake = self.discriminator_terms(name, own[name], pairs, fakes)
        return real + fake, (real, fake)

      gradient = jax.value_and_grad(objective, has_aux=True)
      (total, (real, fake)), grads[name] = gradient({name: params[name]})
      metrics |= {f'loss_{name}': total, f'{name}_real': real, f'{name}_fake': fake}
    return grads, metrics


def make(
  config: ml_collections.ConfigDict, features: models.FeatureNet | None = None
) -> state_lib.Method:
  """The method of stages 2 and 3 and of all baselines.

  Batches are `{'source', 'target'}`, uint8 `[B, H, W, 3]`, and, where styles are swapped
  (`Plan.cycle`), a second pair `{'source_b', 'target_b'}`. `frozen['features']` are the parameters
  of `features`.

  Args:
    config: see `configs/translate.py`.
    features: the feature net of the perceptual losses; None where their weights are zero.
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
    return state_lib.apply_gradients(state, optimizers_, grads, decay), metrics

  return state_lib.Method(init, train_step)


def make_objectives(
  config: ml_collections.ConfigDict, features: models.FeatureNet | None = None
) -> Objectives:
  """The objectives that a configuration asks for; arguments as `make`."""
  return Objectives(
    plan=Plan.of(config),
    encoder=networks.style_encoder(config),
    generator=networks.generator(config),
    discriminator=networks.discriminator(config),
    features=features,
    tap_weights=dict(zip(config.features.taps, config.features.tap_weights, strict=True)),
  )


def make_optimizers(
  config: ml_collections.ConfigDict, plan: Plan
) -> dict[str, state_lib.Optimizer]:
  """One Adam an objective: `generator`, `latent` where there is one, and each discriminator."""
  rates = config.optimizer
  adam = optimizers.scale_by_tf_adam(rates.b1, rates.b2)
  trained = ('generator', 'style_encoder') if plan.train_encoder else ('generator',)

  def optimizer(nets, rate):
    return state_lib.Optimizer(nets, adam, networks.schedule(config, rate))

  found = {'generator': optimizer(trained, rates.generator_lr)}
  if plan.latent:
    found['latent'] = optimizer(('generator',), rates.latent_lr)
  for name in plan.discriminators:
    found[name] = optimizer((name,), rates.discriminator_lr)
  return found
