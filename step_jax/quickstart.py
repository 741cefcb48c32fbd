"""Quickstart: trains, evaluates and reports a method on synthetic pairs, in minutes on a CPU."""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import os
import time
from typing import Any

from step_jax import config as config_lib
from step_jax import files, methods, report
from step_jax.errors import ConfigError
from step_jax.evaluate import results

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Quickstart of a method.

  Attributes:
    arg: argument of the stages' configuration files.
    fields: fields to set in every stage that has them.
    stages: stage -> fields to set in this stage, in training order.
    show: `workdir -> lines`: translates some images, and describes the files written.
  """

  arg: str
  fields: Mapping[str, Any]
  stages: Mapping[str, Mapping[str, Any]]
  show: Callable[[files.Path], str]

  def config(self, stage: str, fields: Mapping[str, Any] | None = None) -> config_lib.ConfigDict:
    """The configuration of a stage, with `fields` instead of those in `stages`."""
    config = config_lib.load(f'{config_lib.stage_file(stage)}:{self.arg}')
    own_fields = dict(config_lib.flatten(config))
    values = {field: value for field, value in self.fields.items() if field in own_fields}
    own = self.stages[stage] if fields is None else fields
    config.update_from_flattened_dict({**values, **own})
    return config


def recipe(method: str) -> Recipe:
  """The recipe of a method.

  Raises:
    ConfigError: the method has none.
  """
  recipe_ = methods.METHODS[method].hook('quickstart')
  if recipe_ is None:
    raise ConfigError(f'--method {method}: has no quickstart')
  return recipe_


def run(workdir: str | os.PathLike, method: str = 'step') -> None:
  """Trains, evaluates, translates and reports in `workdir`; prints the files written."""
  started = time.monotonic()
  shown = recipe(method)
  workdir = files.path(workdir)
  for stage in shown.stages:
    log.info('--- stage %s', stage)
    methods.train(shown.config(stage), workdir)
  scores = results.evaluate(workdir)
  lines = shown.show(workdir)
  page = report.write(workdir)
  print(results.table(scores))
  print(
    f"""
Done in {(time.monotonic() - started) / 60:.1f} minutes. Files in {workdir}:
  report.html                the whole run on one page: {files.resolve(page)}
{lines}"""
  )
