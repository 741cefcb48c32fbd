"""Settings of benchmarks."""

import dataclasses

from step_jax import methods
from step_jax.config import FEATURES, choose
from step_jax.errors import ConfigError

# Benchmarks that do not belong to a method. They run any stage of a method with benchmarks.
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
  """Stages that a benchmark can run, the default first."""
  if name not in ('input_pipeline', 'startup'):
    return benches()[name].stages
  measured = [bench.stages for bench in benches().values()]
  return tuple(dict.fromkeys(('finetune', *(stage for part in measured for stage in part))))


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of one benchmark.

  Attributes:
    name: one of `benches()`.
    size: side of the images.
    batch: images per step; triplets in pre-training.
    width: width of the networks, as defined by the method.
    dtype: compute type; `float32` or `bfloat16`.
    repeats: number of rounds.
    count: number of style vectors for mining, or of codes for IMLE, which draws ten times as many
      samples.
    features: feature network, a key of `config.FEATURES`; its parameters are random.
    vs: peer to compare with, or ''.
    variants: only variants of the peer whose names contain this text are tried.
    tf32: whether float32 products may use TF32 on both sides if the device has it; mining and IMLE
      never do.
    at_least: minimum seconds per measurement.
    data: images for the benchmarks of input pipeline and startup; '' for synthetic ones.
    stage: stage to run, one of `stages(name)`; empty if there are none.
    memory: whether to also measure the peak memory of a training step, in separate processes.
    fsdp: whether a training step shards its state over the devices.
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
    """Settings of a benchmark; missing and zero values are replaced by its defaults.

    Raises:
      ConfigError: an unknown name, an invalid value, or an unsupported comparison.
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
      raise ConfigError(f'--stage {settings.stage}: {name} has no such stage: use bench {others}')
    for flag in ('memory', 'fsdp'):
      if getattr(settings, flag) and not bench.stages:
        raise ConfigError(
          f'--{flag}: needs a training step: use {_list(n for n in by_name if by_name[n].stages)}'
        )
    if settings.vs and settings.vs not in bench.peers:
      compared = _list(n for n in by_name if settings.vs in by_name[n].peers)
      raise ConfigError(f'--vs {settings.vs}: is not available for {name}: use {compared}')
    net = FEATURES[settings.features]['net']
    if settings.vs and 'features' in bench.fields and net not in bench.nets:
      raise ConfigError(f'--vs {settings.vs}: supports only features {_list(bench.nets)}')
    return settings


def _list(names) -> str:
  return ', '.join(names)
