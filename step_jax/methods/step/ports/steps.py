"""StEP's training steps and inference in PyTorch, with the usual optimizations.

Adam and averages are fused over all parameters. Networks that are not being trained compute no
parameter gradients. Target features and inference have no autograd graph. Steps do not synchronise
with the device before the end of a measurement.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from step_jax.bench.ports import running
from step_jax.losses import perceptual
from step_jax.methods.step.ports import nets as torch_nets

_EMA_DECAY = 0.999


class Program(running.Program):
  """Base of the programs of StEP: networks with parameters from Flax."""

  def place(self, module: torch.nn.Module, tree: Mapping) -> torch.nn.Module:
    """Loads parameters from Flax, and moves a network to the device in the memory format."""
    running.load(module, tree)
    for part in module.modules():
      if isinstance(part, torch_nets.InstanceNorm):
        part.grouped = self.way.grouped
    return module.to(self.device, memory_format=self.way.memory_format)


def _adam(parameters, config, rate: float) -> torch.optim.Optimizer:
  betas = config.optimizer.b1, config.optimizer.b2
  return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=1e-8, fused=True)


class PretrainStep(Program):
  """A step of stage 1."""

  def __init__(self, config, params, frozen, batch, way: running.Way):
    del frozen
    super().__init__(way)
    self.loss = config.loss
    module = torch_nets.StyleEncoder(config.model.z_dim, config.model.encoder_width)
    self.encoder = self.place(module, params['style_encoder'])
    self.roles = [self.pictures(batch[role]) for role in ('anchor', 'positive', 'negative')]
    self.adam = _adam(self.encoder.parameters(), config, config.optimizer.encoder_lr)
    self.objective = self.maybe_compile(self.objective_)

  def objective_(self, *roles):
    """Loss of anchors, positives and negatives, `[B, 3, H, W]` each."""
    with self.autocast():
      z, _, _ = self.encoder(running.to_float(torch.cat(roles)))
    anchor, positive, negative = z.chunk(3)
    near = (anchor - positive).square().sum(dim=1)
    far = (anchor - negative).square().sum(dim=1)
    triplet = F.relu(near - far + self.loss.margin).mean()
    l2 = sum(code.square().mean() for code in (anchor, positive, negative))
    return self.loss.triplet * triplet + self.loss.z_l2 * l2

  def call(self):
    loss = self.objective(*self.roles)
    self.adam.zero_grad(set_to_none=True)
    loss.backward()
    self.adam.step()
    return {'loss': loss.detach()}


class TranslateStep(Program):
  """A step of stage 2 or 3 with the released settings: perceptual loss, GAN, L2 on codes, EMA."""

  def __init__(self, config, params, frozen, batch, way: running.Way):
    super().__init__(way)
    model, rates = config.model, config.optimizer
    self.loss, self.tap_weights = config.loss, config.features.tap_weights
    encoder = torch_nets.StyleEncoder(model.z_dim, model.encoder_width)
    generator = torch_nets.Generator(model.z_dim, model.generator_width)
    judge = torch_nets.MultiScaleDiscriminator(model.discriminator_width, model.num_scales)
    self.encoder = self.place(encoder, params['style_encoder'])
    self.generator = self.place(generator, params['generator'])
    self.discriminator = self.place(judge, params['discriminator'])
    self.features = self.place(torch_nets.VGG16(config.features.taps), frozen['features'])
    self.source, self.target = self.pictures(batch['source']), self.pictures(batch['target'])
    self.encoder.requires_grad_(config.train_encoder)
    self.weights = [*self.encoder.parameters(), *self.generator.parameters()]
    self.average = [parameter.detach().clone() for parameter in self.weights]
    trained = [parameter for parameter in self.weights if parameter.requires_grad]
    self.generator_adam = _adam(trained, config, rates.generator_lr)
    self.judge_adam = _adam(self.discriminator.parameters(), config, rates.discriminator_lr)
    self.generator_objective = self.maybe_compile(self.generator_objective_)
    self.judge_objective = self.maybe_compile(self.judge_objective_)

  def generator_objective_(self, source, target):
    """Loss of generator and encoder, and the generated images."""
    source, target = running.to_float(source), running.to_float(target)
    with self.autocast():
      z, _, _ = self.encoder(target)
      fake = self.generator(source, z)
      with torch.no_grad():
        targets = self.features(target)
      activations = self.features(fake)
      logits = self.discriminator(fake, source)
    terms = (
      weight * (perceptual.FEATURE_SCALE * (x.float() - y.float())).square().mean()
      for weight, x, y in zip(self.tap_weights, activations, targets, strict=True)
    )
    # Halved, because the original averages the term with a zero.
    gan = sum((scale - 1.0).square().mean() for scale in logits) / 2
    return (
      self.loss.recon_perceptual * sum(terms)
      + self.loss.gan * gan
      + self.loss.z_l2 * z.square().mean()
    ), fake

  def judge_objective_(self, source, target, fake):
    """Loss of the discriminator."""
    source, target = running.to_float(source), running.to_float(target)
    with self.autocast():
      real = self.discriminator(target, source)
      judged = self.discriminator(fake, source)
    real = sum((scale - 1.0).square().mean() for scale in real) / 2
    return real + sum(scale.square().mean() for scale in judged) / 2

  def call(self):
    self.discriminator.requires_grad_(False)
    generator_loss, fake = self.generator_objective(self.source, self.target)
    self.generator_adam.zero_grad(set_to_none=True)
    generator_loss.backward()
    self.discriminator.requires_grad_(True)
    judge_loss = self.judge_objective(self.source, self.target, fake.detach())
    self.judge_adam.zero_grad(set_to_none=True)
    judge_loss.backward()
    self.generator_adam.step()
    self.judge_adam.step()
    with torch.no_grad():
      torch._foreach_lerp_(self.average, self.weights, 1 - _EMA_DECAY)
    return {
      'loss_generator': generator_loss.detach(),
      'loss_discriminator': judge_loss.detach(),
    }


class Inference(Program):
  """Inference of style encoder and generator, together or separately, on uint8 images."""

  def __init__(self, config, params, batch, what: str, way: running.Way):
    super().__init__(way)
    model = config.model
    encoder = torch_nets.StyleEncoder(model.z_dim, model.encoder_width)
    generator = torch_nets.Generator(model.z_dim, model.generator_width)
    self.encoder = self.place(encoder, params['style_encoder']).requires_grad_(False)
    self.generator = self.place(generator, params['generator']).requires_grad_(False)
    self.source, self.target = self.pictures(batch['source']), self.pictures(batch['target'])
    self.z = torch.from_numpy(np.array(batch['z'])).to(self.device)
    functions = {'translate': self.translate, 'encode': self.encode, 'generate': self.generate}
    self.run = self.maybe_compile(functions[what])

  def encode(self):
    """Codes of the targets."""
    with self.autocast():
      return self.encoder(running.to_float(self.target))[0]

  def generate(self, z=None):
    """Sources in given styles, by default those of the batch."""
    with self.autocast():
      pictures = self.generator(running.to_float(self.source), self.z if z is None else z)
    return (pictures * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)

  def translate(self):
    """Sources in the styles of the targets."""
    return self.generate(self.encode())

  def call(self):
    with torch.inference_mode():
      return self.run()


STEPS = {'pretrain': PretrainStep, 'translate': TranslateStep}
