"""SuperStyleNet's training step in PyTorch, with the usual optimizations.

Adam and averages are fused over all parameters. The generator's loss computes no gradients of the
discriminator's parameters. The new images for the discriminator, and the targets of feature
matching and the perceptual loss, have no autograd graph. A step never synchronises with the device.
"""

from collections.abc import Mapping

import jax
import numpy as np
import torch

from step_jax import weights
from step_jax.bench.ports import running
from step_jax.methods.superstylenet import networks
from step_jax.methods.superstylenet.ports import nets
from step_jax.models.features import PIXEL_STD

_EMA_DECAY = 0.999


def perceptual(
  features: nets.FeatureNet, tap_weights: Mapping[str, float], fake, real
) -> torch.Tensor:
  """The perceptual loss of images `[B, 3, H, W]`, as in `training.Objectives`."""
  with torch.no_grad():
    targets = features(real)
  taps = zip(tap_weights.values(), features(fake), targets, strict=True)
  return sum(w * (x.float() - y.float()).abs().mean() for w, x, y in taps) / PIXEL_STD


class Step(running.Program):
  """Trains the generator, then the discriminator on new images; averages if configured."""

  def __init__(self, config, state, frozen, batch, way: running.Way):
    """Creates networks, optimizers and inputs.

    Args:
      config: configuration of the stage.
      state: params and stats, network -> tree of arrays on the host.
      frozen: `{'features': parameters}`, or empty without a perceptual loss.
      batch: batch of the stage, arrays on the host.
      way: how to run the program.
    """
    super().__init__(way)
    # As in XLA: squares of small gradients are often denormal, which is slow.
    torch.set_flush_denormal(True)
    self.loss, params, stats = config.loss, *state
    last = way.channels_last
    generator = nets.Generator(params['generator'], stats['generator'], last)
    judge = nets.Discriminator(params['discriminator'], stats['discriminator'], way.grouped)
    self.generator, self.discriminator = map(self.place, (generator, judge))
    if self.loss.perceptual:
      net = nets.FeatureNet(config.features.net, config.features.taps, frozen['features'])
      self.features, self.tap_weights = self.place(net), weights.tap_weights(config.features)
    module = networks.generator(config)
    size = batch['labels'].shape
    self.sizes, self.num_labels = module.sizes(*size[1:]), config.data.classes
    self.noise_shapes = jax.tree.map(
      lambda shape: (shape[0], 1, *shape[1:3]), module.noise_shapes(*size),
      is_leaf=lambda x: isinstance(x, tuple),
    )  # fmt: skip
    self.image = self.pictures(batch['image'])
    self.labels = torch.from_numpy(np.array(batch['labels'])).to(self.device)
    self.codes = torch.from_numpy(np.array(batch['codes'])).to(self.device)
    rates, betas = config.optimizer, (float(config.optimizer.b1), config.optimizer.b2)
    adam = lambda net, rate: torch.optim.Adam(net.parameters(), rate, betas, 1e-8, fused=True)
    self.generator_adam = adam(self.generator, rates.generator_lr)
    self.judge_adam = adam(self.discriminator, rates.discriminator_lr)
    self.averaged = []
    if config.ema_decay:
      norms = (x for name, x in self.generator.named_buffers() if name.endswith(('.mean', '.var')))
      self.averaged = [*self.generator.parameters(), *norms]
    self.average = [x.detach().clone() for x in self.averaged]
    self.generator_objective = self.maybe_compile(self.generator_objective_)
    self.judge_objective = self.maybe_compile(self.judge_objective_)
    self.generate = self.maybe_compile(self.generate_)

  def place(self, module: torch.nn.Module) -> torch.nn.Module:
    """Moves a network to the device, in the memory format."""
    return module.to(self.device, memory_format=self.way.memory_format)

  def draw_noise(self) -> Mapping[str, Mapping[str, torch.Tensor]]:
    """Noise maps from N(0, 1): block -> norm -> `[B, 1, h, w]`."""
    draw = lambda shape: torch.randn(shape, device=self.device)
    return {
      name: {norm: draw(shape) for norm, shape in shapes.items()}
      for name, shapes in self.noise_shapes.items()
    }

  def maps(self, labels) -> nets.Maps:
    """Label maps at all sizes."""
    sizes = [*self.sizes.values(), tuple(labels.shape[1:])]
    return nets.Labels(labels.long(), self.num_labels, sizes, self.way.channels_last).maps

  def generate_(self, labels, codes, noise):
    """Generates images, updates the generator's statistics; also returns one-hot labels."""
    maps = self.maps(labels)
    with self.autocast():
      fake = self.generator(maps, self.sizes, 2 * codes - 1, noise, True)
    return fake, maps[tuple(labels.shape[1:])][0]

  def judge(self, one_hot, fake, real):
    """The discriminator's maps of generated and of real images, computed in one pass."""
    with self.autocast():
      both = self.discriminator(torch.cat([one_hot] * 2), torch.cat([fake, real]), True)
    return [[[x.chunk(2)[i].float() for x in scale] for scale in both] for i in range(2)]

  def generator_objective_(self, labels, codes, image, noise):
    """Loss of the generator."""
    fake, one_hot = self.generate_(labels, codes, noise)
    real = running.to_float(image)
    fakes, reals = self.judge(one_hot, fake, real)
    gan = -sum(scale[-1].mean() for scale in fakes) / len(fakes)
    matching = sum(
      (x - y.detach()).abs().mean()
      for ours, theirs in zip(fakes, reals, strict=True)
      for x, y in zip(ours[:-1], theirs[:-1], strict=True)
    ) / len(fakes)
    total = self.loss.gan * gan + self.loss.feature_matching * matching
    if self.loss.perceptual:
      with self.autocast():
        distance = perceptual(self.features, self.tap_weights, fake, real)
      total = total + self.loss.perceptual * distance
    return total, gan, matching

  def judge_objective_(self, one_hot, image, fake):
    """Loss of the discriminator, on generated and on real images."""
    fakes, reals = self.judge(one_hot, fake, running.to_float(image))
    mean = lambda scales, sign: (
      sum(torch.relu(1 + sign * scale[-1]).mean() for scale in scales) / len(scales)
    )
    return mean(fakes, 1), mean(reals, -1)

  def call(self):
    self.discriminator.requires_grad_(False)
    total, gan, matching = self.generator_objective(
      self.labels, self.codes, self.image, self.draw_noise()
    )
    self.generator_adam.zero_grad(set_to_none=True)
    total.backward()
    self.generator_adam.step()
    self.discriminator.requires_grad_(True)
    with torch.no_grad():
      fake, one_hot = self.generate(self.labels, self.codes, self.draw_noise())
    on_fake, on_real = self.judge_objective(one_hot, self.image, fake)
    self.judge_adam.zero_grad(set_to_none=True)
    (on_fake + on_real).backward()
    self.judge_adam.step()
    if self.average:
      with torch.no_grad():
        torch._foreach_lerp_(self.average, self.averaged, 1 - _EMA_DECAY)
    terms = {
      'gan': gan,
      'feature_matching': matching,
      'loss_generator': total,
      'discriminator_fake': on_fake,
      'discriminator_real': on_real,
    }
    return {name: term.detach() for name, term in terms.items()}
