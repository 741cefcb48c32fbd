"""What to measure, and at what size."""

import dataclasses

from step_jax import methods
from step_jax.config import FEATURES, choose
from step_jax.errors import ConfigError

# Those of no method. What a stage reads can be measured of any method that has benchmarks.
_ANY_STAGE = ('size', 'batch', 'width', 'dtype', 'features', 'stage')
_OF_NO_METHOD = {
  'input_pipeline': methods.Bench(dict(size=128, batch=4, repeats=3), _ANY_STAGE),
  'startup': methods.Bench(dict(size=64, batch=4, repeats=2), _ANY_STAGE),
}
DTYPES = ('float32', 'bfloat16')
PEERS = ('torch', 'numpy')


def benches() -> dict[str, methods.Bench]:
  """All benchmarks by name."""
  of_methods = [method.benches for method in methods.METHODS.values()]
  return {name: bench for part in (*of_methods, _OF_NO_METHOD) for name, bench in part.items()}


def stages(name: str) -> tuple[str, ...]:
  """Stages that a benchmark can be asked to run, the default first."""
  if name not in ('input_pipeline', 'startup'):
    return benches()[name].stages
  measured = [bench.stages for bench in benches().values()]
  return tuple(dict.fromkeys(('finetune', *(stage for part in measured for stage in part))))


@dataclasses.dataclass(frozen=True)
class Settings:
  """One bench.

  Attributes:
    name: one of `benches()`.
    size: side of the pictures.
    batch: images per step; triplets in pre-training.
    width: of the networks, as the method counts it.
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
    stage: that is run, one of `stages(name)`; empty where there are none.
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
  stage: str = ''
  memory: bool = False
  fsdp: bool = False

  @classmethod
  def of(cls, name: str, **given) -> 'Settings':
    """Settings of a bench with its defaults where nothing, or zero, is given.

    Raises:
      ConfigError: an unknown name, a value that makes no sense, or a comparison that there is not.
    """
    by_name = benches()
    bench = choose(by_name, name, 'bench')
    stage = next(iter(stages(name)), '')
    chosen = {field: value for field, value in given.items() if value}
    settings = cls(**{'name': name, 'stage': stage, **bench.defaults, **chosen})
    settings = dataclasses.replace(settings, tf32=given.get('tf32', True))
    choose(FEATURES, settings.features, 'feature net')
    if settings.size % 8:
      raise ConfigError(f'--size {settings.size}: the generator needs a multiple of 8')
    if settings.stage and settings.stage not in stages(name):
      others = _list(n for n in by_name if settings.stage in by_name[n].stages) or 'none'
      raise ConfigError(f'--stage {settings.stage}: {name} has no such step: use bench {others}')
    for flag in ('memory', 'fsdp'):
      if getattr(settings, flag) and not bench.stages:
        raise ConfigError(
          f'--{flag}: is of training steps: use {_list(n for n in by_name if by_name[n].stages)}'
        )
    if settings.vs and settings.vs not in bench.peers:
      compared = _list(n for n in by_name if settings.vs in by_name[n].peers)
      raise ConfigError(f'--vs {settings.vs}: there is no peer of {name}: use {compared}')
    net = FEATURES[settings.features]['net']
    if settings.vs and 'features' in bench.fields and net not in bench.nets:
      raise ConfigError(f'--vs {settings.vs}: is there with features {_list(bench.nets)} alone')
    return settings


def _list(names) -> str:
  return ', '.join(names)
