"""Writes curves, tables and galleries of a run to one HTML page that works offline."""

import logging
import os

import jinja2

from step_jax import config as config_lib
from step_jax import files, methods
from step_jax.data import pictures
from step_jax.errors import DataError, RunError
from step_jax.evaluate import results as results_lib
from step_jax.report import charts, galleries
from step_jax.train import writers

log = logging.getLogger(__name__)

FILE = 'report.html'


def write(workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> files.Path:
  """Writes `report.html` to a run's work directory, or to `out`.

  The page shows the curves of each trained stage, the scores of each evaluated stage, and
  translations of validation images.

  Args:
    workdir: work directory of the run, or an export.
    out: folder for the page; scores of an export are read from here.

  Raises:
    RunError: no stage has been trained; or `workdir` is an export that is damaged, or `out` is
      missing for it.
  """
  workdir = methods.resolve(workdir)
  out = methods.output(workdir, out)
  folders = [workdir / stage.name for method in methods.METHODS.values() for stage in method.stages]
  stages = [_stage(folder, folder) for folder in folders if (folder / config_lib.FILE).is_file()]
  if methods.is_export(workdir):
    stages = [_stage(workdir, out)]
  if not stages:
    raise RunError(f'{workdir}: has no trained stage to report on: run step-jax train first')
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('step_jax.report', '.'), autoescape=True
  )
  html = environment.get_template('page.html.j2').render(
    title=files.resolve(workdir).name, stages=stages, **_translations(workdir)
  )
  files.make_folder(out)
  path = out / FILE
  files.write_text(path, html)
  return path


def _stage(folder: files.Path, scored: files.Path) -> dict:
  rows = writers.read_metrics(folder)
  config = methods.read_config(folder)
  method, _ = methods.of_stage(config.stage)
  warn = method.hook('warnings') or (lambda signs: [])
  results = results_lib.read(scored)
  groups = results_lib.by_group(results) if results else {}
  return {
    'name': config.stage,
    'steps': max((row['step'] for row in rows), default=0),
    'warnings': warn(_last_signs(rows)),
    'curves': charts.curves(rows) if rows else '',
    'config': config_lib.flatten(config),
    'results': results,
    'groups': {
      group: [(name, *results_lib.texts(score), score) for name, score in scores.items()]
      for group, scores in groups.items()
    },
  }


def _last_signs(rows: list[dict]) -> dict[str, float]:
  """The latest value of each evaluation metric, without the `val_` prefix."""
  latest = {name: value for row in rows for name, value in row.items()}
  return {k.removeprefix('val_'): value for k, value in latest.items() if k.startswith('val_')}


def _translations(workdir: files.Path) -> dict:
  """Galleries as (title, data URL), and a note on how new styles are sampled."""
  try:
    run = methods.load(workdir)
  except (DataError, RunError) as error:
    if methods.is_export(workdir):
      raise  # The export is damaged.
    return _without_galleries(error)
  try:
    make = methods.METHODS[run.method].hook('galleries') or galleries.make
    images = make(run)
  except (DataError, RunError) as error:
    return _without_galleries(error)
  return {
    'galleries': [(title, pictures.data_url(image)) for title, image in images.items()],
    'note': run.note,
  }


def _without_galleries(error: Exception) -> dict:
  log.info('the report has no galleries: %s', error)
  return {'galleries': [], 'note': ''}
