"""Metrics and images of a run in Weights & Biases, beside the files of its folder."""

from collections.abc import Mapping
import importlib.util
import json
import secrets

import ml_collections
import numpy as np

from step_jax import files, places, untrusted
from step_jax.errors import ConfigError, RunError, first_line

# In a stage's folder: by its id an interrupted run continues the same page.
FILE = 'wandb.json'


def check(project: str) -> None:
  """Makes sure that the library is there if it is asked for.

  Raises:
    ConfigError: it is not.
  """
  if project and importlib.util.find_spec('wandb') is None:
    raise ConfigError(f"--wandb {project}: needs the package wandb: pip install -e '.[wandb]'")


class WandbWriter:
  """Sends what a stage reports to Weights & Biases; a writer as `writers.MetricWriter`.

  `wandb login` or WANDB_API_KEY gives access. With WANDB_MODE=offline everything stays in
  `wandb/` beside the stage's folder (for a bucket: in the cache), to be sent later by `wandb sync`.

  Args:
    project: name of the project.
    folder: of the stage. The page of the run is named after it and its parent.
    config: of the stage, all of which is sent.

  Raises:
    RunError: the run cannot be started.
  """

  def __init__(self, project: str, folder: files.Path, config: ml_collections.ConfigDict):
    import wandb

    absolute = files.absolute(folder)
    # Not in the stage's folder: the library makes links, which training refuses to write through.
    here = places.cache() if files.in_bucket(folder) else absolute.parent
    try:
      self._run = wandb.init(
        project=project,
        id=_id(folder),
        resume='allow',
        name=f'{absolute.parent.name}/{absolute.name}',
        dir=str(here),
        config=config.to_dict(),
      )
    except Exception as error:  # The library's errors have no base of their own.
      raise RunError(
        f'--wandb {project}: cannot be started ({first_line(error)}): run `wandb login`, or set '
        'WANDB_MODE=offline'
      ) from error
    self._image = wandb.Image
    # An interrupted run may repeat steps, which the library's own counter does not allow.
    self._run.define_metric('step')
    self._run.define_metric('*', step_metric='step')

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Sends one row of scalars by name."""
    self._run.log({'step': step, **{name: float(value) for name, value in scalars.items()}})

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Sends images, uint8 `[H, W, 3]`, by name."""
    named = {f'samples/{name}': self._image(image) for name, image in images.items()}
    self._run.log({'step': step, **named})

  def flush(self) -> None:
    """Nothing to do: the library sends in the background."""

  def close(self) -> None:
    """Waits until everything is sent."""
    self._run.finish()


def _id(folder: files.Path) -> str:
  """The id of a stage's run, made when it first starts."""
  path = folder / FILE
  if path.is_file():
    try:
      return str(untrusted.read_json(path.read_text('utf-8'))['id'])
    except (ValueError, KeyError) as error:
      raise untrusted.damaged(path, error, 'remove it to start another page') from None
  new_id = secrets.token_hex(4)
  files.write_text(path, json.dumps({'id': new_id}) + '\n')
  return new_id
