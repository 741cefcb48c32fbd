"""Sends metrics and images of a run to Weights & Biases, in addition to the files in its folder."""

from collections.abc import Mapping
import importlib.util
import json
import secrets

import ml_collections
import numpy as np

from step_jax import files, places, untrusted
from step_jax.errors import ConfigError, RunError, first_line

# File in the folder of the stage with the id of the run, to resume the same page.
FILE = 'wandb.json'


def check(project: str) -> None:
  """Checks that the library is installed if it is needed.

  Raises:
    ConfigError: it is not.
  """
  if project and importlib.util.find_spec('wandb') is None:
    raise ConfigError(f"--wandb {project}: needs the package wandb: pip install -e '.[wandb]'")


class WandbWriter:
  """Sends metrics and images to Weights & Biases, with the interface of `writers.MetricWriter`.

  Log in with `wandb login` or WANDB_API_KEY. With WANDB_MODE=offline, everything is stored in
  `wandb/` next to the folder of the stage (for a bucket: in the cache), for `wandb sync`.

  Args:
    project: name of the project.
    folder: folder of the stage, which with its parent names the page of the run.
    config: configuration of the stage, which is sent.

  Raises:
    RunError: the run cannot be started.
  """

  def __init__(self, project: str, folder: files.Path, config: ml_collections.ConfigDict):
    import wandb

    absolute = files.absolute(folder)
    # Not in the folder of the stage: the library creates links, which training refuses there.
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
    except Exception as error:  # Errors of the library have no common base class.
      raise RunError(
        f'--wandb {project}: cannot be started ({first_line(error)}): run `wandb login`, or set '
        'WANDB_MODE=offline'
      ) from error
    self._image = wandb.Image
    # A resumed run may repeat steps, which the counter of the library does not allow.
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
  """Id of the run of a stage, created at the first start."""
  path = folder / FILE
  if path.is_file():
    try:
      return str(untrusted.read_json(path.read_text('utf-8'))['id'])
    except (ValueError, KeyError) as error:
      raise untrusted.damaged(path, error, 'remove it to start another page') from None
  new_id = secrets.token_hex(4)
  files.write_text(path, json.dumps({'id': new_id}) + '\n')
  return new_id
