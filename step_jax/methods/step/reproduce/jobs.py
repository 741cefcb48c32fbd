"""From a table to the stages that have to be trained for it, each once."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

from step_jax import config as config_lib
from step_jax.config import ConfigDict
from step_jax.errors import ConfigError
from step_jax.methods.step.reproduce.tables import Row, Table

# Of the pictures of a pre-trained row, those that stage 2 sees; stage 3 sees the rest. As the
# original's 250 of 700 thousand.
_FROZEN_SHARE = 250 / 700


@dataclasses.dataclass(frozen=True)
class Source:
  """A set of pictures: where it lies, and which of `config.DATASETS` gives its settings."""

  path: str
  preset: str = ''

  @classmethod
  def parse(cls, text: str) -> 'Source':
    """Reads `PATH`, `PRESET=PATH`, or the name of a known set, which is both."""
    preset, equals, path = text.partition('=')
    if not equals:
      known = text in config_lib.DATASETS
      return cls('', text) if known else cls(text)
    config_lib.choose(config_lib.DATASETS, preset, 'preset')
    return cls(path, preset)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all rows share.

  Attributes:
    sources: `target` and, for tables that ask for them, `related` and `unrelated` -> pictures.
    size: train on squares of so many pixels; 0 keeps the data set's own sizes.
    features: of `config.FEATURES`.
    weights: of the feature net, as `config.features.weights`.
    kimg: thousands of pictures that every row's generator is trained on.
    pretrain_kimg: thousands of triplets that style encoders are pre-trained on.
    seeds: how many times everything is trained.
    fields: configuration field -> text; set in every stage that has the field.
  """

  sources: Mapping[str, Source]
  size: int = 64
  features: str = 'vgg16'
  weights: str = ''
  kimg: float = 8.0
  pretrain_kimg: float = 8.0
  seeds: int = 3
  fields: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Job:
  """One stage to train.

  Attributes:
    run: work directory of its run, relative to that of the table.
    config: of the stage.
    mined_by: run whose mined neighbours it takes over; empty where it mines itself.
  """

  run: str
  config: ConfigDict
  mined_by: str = ''

  @property
  def folder(self) -> pathlib.PurePath:
    """Of the stage, relative to the work directory of the table."""
    return pathlib.PurePath(self.run) / self.config.stage


def make(table: Table, settings: Settings, rows: Sequence[Row]) -> list[Job]:
  """What has to be trained for rows of a table, in an order that works.

  Raises:
    ConfigError: a field that no stage has.
  """
  found: dict[tuple, Job] = {}
  for seed in range(settings.seeds):
    for row in rows:
      for job in of_row(table, settings, row, seed):
        found.setdefault((job.run, job.config.stage), job)
  known = {field for job in found.values() for field, _ in config_lib.flatten(job.config)}
  for field in settings.fields:
    if field not in known:
      raise ConfigError(f'config field {field!r} is unknown to every stage of this table')
  return list(found.values())


def of_row(table: Table, settings: Settings, row: Row, seed: int) -> list[Job]:
  """What has to be trained for a row, in order; some of it other rows need too."""
  run = f'{row.run}/seed{seed}'
  target = settings.sources['target']
  start = ''
  found = []
  if row.encoder in settings.sources:
    encoder_run = f'encoder-{row.encoder}/seed{seed}'
    start = f'../../{encoder_run}/pretrain'
    # Neighbours do not depend on the seed.
    mined_by = f'encoder-{row.encoder}/seed0' if seed else ''
    config = _config('pretrain', settings, settings.sources[row.encoder], seed)
    config_lib.set_kimg(config, settings.pretrain_kimg)
    found.append(Job(encoder_run, config, mined_by))
  shares = {'translate': _FROZEN_SHARE, 'finetune': 1 - _FROZEN_SHARE}
  for stage in row.stages:
    config = _config(stage, settings, target, seed, row.preset)
    config_lib.set_kimg(config, settings.kimg * (shares[stage] if row.encoder else 1))
    if stage == 'translate':
      config.init_from = start
    found.append(Job(run, config))
  if table.draws:
    config = _config('mapper', settings, target, seed)
    config.init_from = row.stages[-1]
    found.append(Job(run, config))
  return found


def _config(stage: str, settings: Settings, source: Source, seed: int, preset: str = ''):
  options = [source.preset, f'features={settings.features}']
  options += [f'size={settings.size}'] if settings.size else []
  options += [f'preset={preset}'] if preset else []
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{",".join(options)}')
  known = {field for field, _ in config_lib.flatten(config)}
  for field, text in settings.fields.items():
    if field in known:
      config_lib.set_field(config, field, text)
  config.seed = seed
  if source.path:
    config.data.path = source.path
  if settings.weights and 'features' in config:
    config.features.weights = settings.weights
  return config
