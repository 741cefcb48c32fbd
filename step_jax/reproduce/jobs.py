"""Tables, and the training jobs that they need, each stage once."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Protocol

from step_jax import config as config_lib
from step_jax.config import ConfigDict, Source
from step_jax.errors import ConfigError


class Row(Protocol):
  """One row of a table.

  Attributes:
    title: title in the table.
    run: folder of its run; rows may share a run.
    stage: stage that is scored.
    preset: preset of that stage's configuration file.
    needs: keys of `Settings.sources` that it trains on.
  """

  title: str
  run: str
  stage: str
  preset: str
  needs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings shared by all rows.

  Attributes:
    sources: `target` and, for tables that need them, `related` and `unrelated` -> images.
    size: side of the square training images; 0 keeps the sizes of the data set.
    features: a key of `config.FEATURES`.
    weights: weights of the feature network, as in `config.features.weights`.
    kimg: training length of each row's generator, in thousands of images.
    pretrain_kimg: training length of style encoders, in thousands of triplets.
    seeds: number of seeds; each trains everything again.
    fields: configuration field -> value as text, set in every stage that has the field.
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
    config: configuration of the stage.
    takes_from: run from which files of the same stage are copied; empty: none.
    takes: pattern of these files.
  """

  run: str
  config: ConfigDict
  takes_from: str = ''
  takes: str = ''

  @property
  def folder(self) -> pathlib.PurePath:
    """Folder of the stage, relative to the work directory of the table."""
    return pathlib.PurePath(self.run) / self.config.stage


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of `step-jax reproduce`.

  Attributes:
    title: title of the table.
    rows: rows in order.
    groups: groups of scores, from `evaluate.protocols.GROUPS`.
    jobs: `(table, settings, row, seed) -> [Job]`: the jobs of a row in order; rows may share jobs.
    facts: `settings -> sentences`: notes on how the rows were trained.
  """

  title: str
  rows: tuple[Row, ...]
  groups: tuple[str, ...]
  jobs: Callable[['Table', Settings, Row, int], list[Job]]
  facts: Callable[[Settings], Sequence[str]]


def with_sources(rows: Sequence[Row], settings: Settings) -> list[Row]:
  """The rows whose data sets the settings have."""
  return [row for row in rows if set(row.needs) <= set(settings.sources)]


def make(table: Table, settings: Settings, rows: Sequence[Row]) -> list[Job]:
  """Training jobs of the rows of a table, each after the jobs that it depends on.

  Raises:
    ConfigError: no stage has one of the fields.
  """
  jobs: dict[tuple, Job] = {}
  for seed in range(settings.seeds):
    for row in rows:
      for job in table.jobs(table, settings, row, seed):
        jobs.setdefault((job.run, job.config.stage), job)
  # Of all rows: a command for some of them takes the same fields as one for the whole table.
  every_row = with_sources(table.rows, settings)
  configs = [job.config for row in every_row for job in table.jobs(table, settings, row, 0)]
  fields = {field for config in configs for field, _ in config_lib.flatten(config)}
  for field in settings.fields:
    if field not in fields:
      raise ConfigError(f'config field {field!r} is unknown to every stage of this table')
  return list(jobs.values())
