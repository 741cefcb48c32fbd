"""What to measure, and at what size."""

import dataclasses

from step_jax.config import FEATURES, choose
from step_jax.errors import ConfigError

# Sizes by name: seconds a call on two cores, so that a bench takes a few minutes there.
DEFAULTS = {
  'pretrain_step': dict(size=128, batch=12),
  'translate_step': dict(size=128, batch=4),
  'inference': dict(size=256, batch=8),
  'mining': dict(count=400),
  'imle': dict(count=5000),
  'input_pipeline': dict(size=128, batch=4, repeats=3),
  'startup': dict(size=64, batch=4, repeats=2),
}
NAMES = tuple(DEFAULTS)
# Those that another library does too.
COMPARED = ('pretrain_step', 'translate_step', 'inference', 'mining', 'imle')
STEPS = ('pretrain_step', 'translate_step')
DTYPES = ('float32', 'bfloat16')
PEERS = ('torch',)
STAGES = ('pretrain', 'translate', 'finetune')


@dataclasses.dataclass(frozen=True)
class Settings:
  """One bench.

  Attributes:
    name: one of `NAMES`.
    size: side of the pictures.
    batch: pictures a step; triplets when pre-training.
    width: of generator and discriminator; the style encoder is twice as wide.
    dtype: compute type; `float32` or `bfloat16`.
    repeats: rounds.
    count: style vectors to mine among; codes of IMLE, which has ten times as many samples.
    features: the feature net, a key of `config.FEATURES`; its parameters are random.
    vs: the peer to compare with, or ''.
    variants: text that the names of the peer's variants must have to be tried.
    tf32: whether float32 products may be computed in TF32 where a device can, on both sides; mining
      and IMLE never do.
    at_least: seconds that a measurement lasts.
    data: pictures for the input pipeline and the start; '' for synthetic ones.
    stage: whose step `translate_step` (the encoder frozen or trained), `input_pipeline` and
      `startup` run.
    memory: whether peak memory of a training step is measured too, in processes of its own.
    fsdp: whether a training step splits its state over the devices.
  """

  name: str
  size: int = 0
  batch: int = 0
  width: int = 32
  dtype: str = 'float32'
  repeats: int = 5
  count: int = 0
  features: str = 'vgg16'
  vs: str = ''
  variants: str = ''
  tf32: bool = True
  at_least: float = 0.3
  data: str = ''
  stage: str = 'finetune'
  memory: bool = False
  fsdp: bool = False

  @property
  def step_stage(self) -> str:
    """The stage whose step a bench of a training step measures."""
    return 'pretrain' if self.name == 'pretrain_step' else self.stage

  @classmethod
  def of(cls, name: str, **given) -> 'Settings':
    """Settings of a bench with its defaults where nothing, or zero, is given.

    Raises:
      ConfigError: an unknown name, a value that makes no sense, or a comparison that there is not.
    """
    choose(DEFAULTS, name, 'bench')
    settings = cls(**{'name': name, **DEFAULTS[name], **{k: v for k, v in given.items() if v}})
    settings = dataclasses.replace(settings, tf32=given.get('tf32', True))
    choose(FEATURES, settings.features, 'feature net')
    if settings.size % 8:
      raise ConfigError(f'--size {settings.size}: the generator needs a multiple of 8')
    if name == 'translate_step' and settings.stage == 'pretrain':
      raise ConfigError('--stage pretrain: that step is the bench pretrain_step')
    if settings.memory and name not in STEPS:
      raise ConfigError(f'--memory: is of training steps: use {_list(STEPS)}')
    if settings.fsdp and name not in STEPS:
      raise ConfigError(f'--fsdp: is of training steps: use {_list(STEPS)}')
    if settings.vs and name not in COMPARED:
      raise ConfigError(f'--vs {settings.vs}: there is no peer of {name}: use {_list(COMPARED)}')
    if settings.vs and FEATURES[settings.features]['net'] != 'vgg16':
      raise ConfigError(f'--vs {settings.vs}: is there with features vgg16 alone')
    return settings


def _list(names) -> str:
  return ', '.join(names)
