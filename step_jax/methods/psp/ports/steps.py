"""The training steps of StyleGAN2 and pSp in PyTorch, with the usual optimizations.

Adam and averages are fused over all parameters, and Ranger uses lists of parameters. Networks that
are not being trained compute no parameter gradients. In compiled ways, double differentiation is
compiled too. Steps do not synchronise with the device before the end of a measurement.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from step_jax.bench.ports import running
from step_jax.losses import perceptual
from step_jax.methods.psp import gan, networks, ranger
from step_jax.methods.psp import train_stylegan2 as ours
from step_jax.methods.psp.ports import encoder_nets, nets


class Program(running.Program):
  """Base of both steps: networks with variables from Flax."""

  def place(self, module: torch.nn.Module, *trees) -> torch.nn.Module:
    """Loads variables from Flax, and moves a network to the device in the memory format."""
    return nets.load(module, *trees).to(self.device, memory_format=self.way.memory_format)

  def make_generator(self, config, params) -> nets.Generator:
    """The generator of a configuration."""
    module = networks.generator(config)
    generator = nets.Generator(module.channels, module.style_dim, module.mapping_depth)
    return self.place(generator, params)


class StyleGAN2Step(Program):
  """Steps of StyleGAN2; a call runs all steps from one with all terms to the next."""

  def __init__(self, config, params, frozen, batch, way: running.Way):
    del frozen
    super().__init__(way)
    self.config = config
    self.generator = self.make_generator(config, params['generator'])
    judge = nets.Discriminator(networks.discriminator(config).channels)
    self.discriminator = self.place(judge, params['discriminator'])
    self.average = [p.detach().clone() for p in self.generator.parameters()]
    self.w_mean = torch.zeros(config.model.style_dim, device=self.device)
    self.path_mean = torch.zeros((), device=self.device)
    self.real = self.pictures(batch['image'])
    base = gan.AdamSettings(*(config.optimizer[name] for name in gan.AdamSettings._fields))
    self.generator_adam = _adam(self.generator, gan.lazy(base, config.interval.path))
    self.judge_adam = _adam(self.discriminator, gan.lazy(base, config.interval.r1))
    for name in ('draw_images', 'judge_loss', 'r1', 'generator_loss', 'path'):
      setattr(self, name, self.maybe_compile(getattr(self, f'{name}_')))

  def draw(self) -> ours.Draws:
    """Draws all random inputs of a step."""
    batch, layers = len(self.real), self.generator.num_styles
    small = max(1, batch // self.config.path_shrink)

    def latents(count):
      mixed = torch.rand(()) < self.config.style_mixing
      crossover = torch.where(mixed, torch.randint(1, layers, ()), layers).to(self.device)
      z = torch.randn(2, count, self.generator.style_dim, device=self.device)
      return ours.Latents(z, crossover, self.generator.random_noise(count, self.device))

    pixels = torch.randn(small, 3, *self.real.shape[2:], device=self.device)
    return ours.Draws(latents(batch), latents(batch), latents(small), pixels, None)

  def styles_(self, z, crossover):
    """Styles of latents per layer, `[B, n, D]`, and styles of the first latents, `[B, D]`."""
    first, second = self.generator.map(z.flatten(0, 1)).chunk(2)
    layers = torch.arange(self.generator.num_styles, device=z.device)
    below = (layers < crossover)[:, None]
    return torch.where(below, first[:, None], second[:, None]), first

  def draw_images_(self, z, crossover, noise):
    """Generates images from latents."""
    return self.generator.synthesize(self.styles_(z, crossover)[0], noise)

  def judge_loss_(self, real, fake):
    """Loss of the discriminator."""
    real = self.discriminator(running.to_float(real))
    return F.softplus(-real).mean() + F.softplus(self.discriminator(fake)).mean()

  def r1_(self, real):
    """Squared gradients of the logits, averaged over the batch."""
    gradient = torch.func.grad(lambda x: self.discriminator(x).sum())(running.to_float(real))
    return gradient.square().sum(dim=(1, 2, 3)).mean()

  def generator_loss_(self, z, crossover, noise):
    """Loss of the generator, and the mean style."""
    w_plus, w = self.styles_(z, crossover)
    logits = self.discriminator(self.generator.synthesize(w_plus, noise))
    return F.softplus(-logits).mean(), w.detach().mean(dim=0)

  def path_(self, z, crossover, noise, pixels, mean):
    """Path length penalty, and the updated running mean."""
    w_plus, _ = self.styles_(z, crossover)
    pixels = pixels / math.sqrt(pixels.shape[2] * pixels.shape[3])
    images = lambda w_plus: (self.generator.synthesize(w_plus, noise) * pixels).sum()
    gradient = torch.func.grad(images)(w_plus)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    mean = mean + gan.PATH_DECAY * (lengths.mean() - mean)
    return (lengths - mean).square().mean(), mean.detach()

  def step(self, i: int, draws: ours.Draws) -> dict[str, torch.Tensor]:
    """Runs step `i` with given random inputs; returns the losses and penalties."""
    loss, interval = self.config.loss, self.config.interval
    self.discriminator.requires_grad_(True)
    self.generator.requires_grad_(False)
    with torch.no_grad():
      fake = self.draw_images(*draws.discriminator)
    terms = {'loss_discriminator': self.judge_loss(self.real, fake)}
    _update(self.judge_adam, terms['loss_discriminator'])
    if i % interval.r1 == 0:
      terms['r1'] = self.r1(self.real)
      _update(self.judge_adam, loss.r1 / 2 * interval.r1 * terms['r1'])
    self.discriminator.requires_grad_(False)
    self.generator.requires_grad_(True)
    terms['loss_generator'], w = self.generator_loss(*draws.generator)
    _update(self.generator_adam, terms['loss_generator'])
    if i % interval.path == 0:
      terms['path'], self.path_mean = self.path(*draws.path, draws.pixels, self.path_mean)
      _update(self.generator_adam, loss.path * interval.path * terms['path'])
    with torch.no_grad():
      weights = list(self.generator.parameters())
      torch._foreach_lerp_(self.average, weights, 1 - self.config.optimizer.ema_decay)
      self.w_mean.lerp_(w, 1 - ours.W_MEAN_DECAY)
    return {name: term.detach() for name, term in terms.items()}

  def call(self):
    for i in range(math.lcm(*self.config.interval.values())):
      self.step(i, self.draw())


class PspStep(Program):
  """A step of pSp with the terms `l2` and `lpips` (AlexNet), a frozen generator, and Ranger."""

  def __init__(self, config, params, frozen, batch, way: running.Way):
    super().__init__(way)
    self.loss, module = config.loss, networks.encoder(config)
    encoder = encoder_nets.GradualStyleEncoder(
      module.num_styles, module.size, module.depths, module.widths, module.style_dim
    )
    self.encoder = self.place(encoder, params['encoder'])
    self.generator = self.make_generator(config, params['generator']).requires_grad_(False)
    self.mean_style = torch.zeros(module.style_dim, device=self.device)
    self.features = self.place(encoder_nets.AlexNet(), frozen['features'])
    self.heads = [
      torch.from_numpy(np.array(frozen['heads'][f'conv{i}'])).to(self.device) for i in range(1, 6)
    ]
    self.source, self.target = self.pictures(batch['source']), self.pictures(batch['target'])
    self.ranger = Ranger(self.encoder.parameters(), config.optimizer.learning_rate)
    self.objective = self.maybe_compile(self.objective_)

  def objective_(self, source, target, noise):
    """The loss terms."""
    target = running.to_float(target)
    styles = self.encoder(running.to_float(source)) + self.mean_style
    output = self.generator.synthesize(styles, noise)
    output = F.adaptive_avg_pool2d(output, target.shape[-2:])
    with torch.no_grad():
      targets = self.features(target)
    taps = zip(self.features(output), targets, self.heads, strict=True)
    lpips = sum(_lpips(x, y, head) for x, y, head in taps)
    return (output - target).square().mean(), lpips

  def step(self, noise) -> dict[str, torch.Tensor]:
    """Runs a step with given noise of the generator; returns the terms."""
    l2, lpips = self.objective(self.source, self.target, noise)
    _update(self.ranger, self.loss.l2 * l2 + self.loss.lpips * lpips)
    return {'l2': l2.detach(), 'lpips': lpips.detach()}

  def call(self):
    self.step(self.generator.random_noise(len(self.source), self.device))


def _lpips(x, y, head):
  x, y = (
    t / (t.square().sum(dim=1, keepdim=True).sqrt() + perceptual.LPIPS_EPSILON) for t in (x, y)
  )
  return ((x - y).square() * head[:, None, None]).sum(dim=1).mean()


def _adam(module, settings: gan.AdamSettings) -> torch.optim.Optimizer:
  betas = settings.b1, settings.b2
  return torch.optim.Adam(
    module.parameters(), lr=settings.learning_rate, betas=betas, eps=1e-8, fused=True
  )


def _update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
  optimizer.zero_grad(set_to_none=True)
  loss.backward()
  optimizer.step()


class Ranger(torch.optim.Optimizer):
  """`ranger.ranger`, with operations on lists of parameters."""

  def __init__(self, parameters, rate: float, b1: float = 0.95, b2: float = 0.999):
    super().__init__(parameters, {})
    self.rate, self.b1, self.b2, self.count = rate, b1, b2, 0
    self.sizes, self.rectified_from = ranger.step_sizes(b1, b2)
    self.weights = self.param_groups[0]['params']
    self.m, self.v = ([torch.zeros_like(p) for p in self.weights] for _ in range(2))
    self.slow = [p.detach().clone() for p in self.weights]

  @torch.no_grad()
  def step(self):
    """Updates the parameters."""
    self.count += 1
    # Kernels are [out, in, k, k] or [in, out].
    axes = {4: (1, 2, 3), 2: (0,)}
    grads = [
      p.grad - p.grad.mean(dim=axes[p.ndim], keepdim=True) if p.ndim in axes else p.grad
      for p in self.weights
    ]
    torch._foreach_lerp_(self.m, grads, 1 - self.b1)
    torch._foreach_mul_(self.v, self.b2)
    torch._foreach_addcmul_(self.v, grads, grads, 1 - self.b2)
    size = self.rate * float(self.sizes[min(self.count, len(self.sizes) - 1)])
    if self.count >= self.rectified_from:
      divisors = torch._foreach_sqrt(self.v)
      torch._foreach_add_(divisors, ranger.EPSILON)
      torch._foreach_addcdiv_(self.weights, self.m, divisors, -size)
    else:
      torch._foreach_add_(self.weights, self.m, alpha=-size)
    if self.count % ranger.LOOKAHEAD_STEPS == 0:
      torch._foreach_lerp_(self.slow, self.weights, ranger.LOOKAHEAD_RATE)
      torch._foreach_copy_(self.weights, self.slow)


STEPS = {'stylegan2': StyleGAN2Step, 'psp': PspStep}
