"""Tables, and what has to be trained for them, each stage once."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Protocol

from step_jax import config as config_lib
from step_jax.config import ConfigDict, Source
from step_jax.errors import ConfigError


class Row(Protocol):
  """One line of a table.

  Attributes:
    title: for people.
    run: folder of its run; rows may share one.
    stage: the one that is scored.
    preset: of the configuration file of that stage.
    needs: which of `Settings.sources` it is trained on.
  """

  title: str
  run: str
  stage: str
  preset: str
  needs: tuple[str, ...]


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
    takes_from: run whose files of the same stage it takes over; empty: none.
    takes: pattern of these files.
  """

  run: str
  config: ConfigDict
  takes_from: str = ''
  takes: str = ''

  @property
  def folder(self) -> pathlib.PurePath:
    """Of the stage, relative to the work directory of the table."""
    return pathlib.PurePath(self.run) / self.config.stage


@dataclasses.dataclass(frozen=True)
class Table:
  """What `step-jax reproduce` makes.

  Attributes:
    title: for people.
    rows: in order.
    groups: of `evaluate.protocols.GROUPS`, that rows are scored by.
    jobs: `(table, settings, row, seed) -> [Job]`: what has to be trained for a row, in order; some
      of it other rows need too.
    facts: `settings -> sentences`: what a reader must know of how rows were trained.
  """

  title: str
  rows: tuple[Row, ...]
  groups: tuple[str, ...]
  jobs: Callable[['Table', Settings, Row, int], list[Job]]
  facts: Callable[[Settings], Sequence[str]]


def make(table: Table, settings: Settings, rows: Sequence[Row]) -> list[Job]:
  """What has to be trained for rows of a table, in an order that works.

  Raises:
    ConfigError: a field that no stage has.
  """
  jobs: dict[tuple, Job] = {}
  for seed in range(settings.seeds):
    for row in rows:
      for job in table.jobs(table, settings, row, seed):
        jobs.setdefault((job.run, job.config.stage), job)
  fields = {field for job in jobs.values() for field, _ in config_lib.flatten(job.config)}
  for field in settings.fields:
    if field not in fields:
      raise ConfigError(f'config field {field!r} is unknown to every stage of this table')
  return list(jobs.values())
