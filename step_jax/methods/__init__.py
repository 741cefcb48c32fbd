"""The methods by name, and what is asked of a run without knowing its method."""

from collections.abc import Mapping
import os
from typing import TYPE_CHECKING, Any

from step_jax import config as config_lib
from step_jax import files
from step_jax.errors import ConfigError, RunError, shown
from step_jax.methods import psp, step, superstylenet
from step_jax.methods.method import Bench, Encoder, Importer, Method, Option, Preset, Run, Stage
from step_jax.methods.names import is_export, output, resolve, shipped

if TYPE_CHECKING:
  import ml_collections

  from step_jax import data
  from step_jax.train import stage as stage_lib

__all__ = [
  'Bench',
  'Encoder',
  'Importer',
  'METHODS',
  'Method',
  'Option',
  'Preset',
  'Run',
  'STAGES',
  'Stage',
  'abstract_step',
  'encode',
  'find',
  'is_export',
  'load',
  'of_stage',
  'output',
  'read_config',
  'register',
  'resolve',
  'roles',
  'shipped',
  'train',
  'validate',
]

METHODS: dict[str, Method] = {}
STAGES: dict[str, Stage] = {}


def register(method: Method) -> None:
  """Adds a method: the command line, `find`, `load` and all applications know it from then on.

  A method that is registered again, as when its configuration file is read again, replaces itself.

  Raises:
    ValueError: another method has a stage of the same name.
  """
  others = [other for name, other in METHODS.items() if name != method.name]
  names = {stage.name for other in others for stage in other.stages}
  for stage in method.stages:
    if stage.name in names:
      raise ValueError(f'method {method.name!r}: another method has a stage {stage.name!r}')
  METHODS[method.name] = method
  for stage in method.stages:
    STAGES[stage.name] = stage
    if stage.config:
      config_lib.FILES[stage.name] = stage.config


register(step.METHOD)
register(psp.METHOD)
register(superstylenet.METHOD)


def of_stage(name: str) -> tuple[Method, Stage]:
  """The stage with that name, and its method.

  Raises:
    ConfigError: there is no such stage.
  """
  for method in METHODS.values():
    for stage in method.stages:
      if stage.name == name:
        return method, stage
  names = ', '.join(stage.name for method in METHODS.values() for stage in method.stages)
  raise ConfigError(f'no stage is called {shown(name)!r}: there are {names}')


def train(
  config: 'ml_collections.ConfigDict', workdir: str | os.PathLike, change_config: bool = False
) -> files.Path:
  """Trains a stage; see `train.run.train`.

  Raises:
    UserError: the configuration is not valid, or what `train.run.train` raises.
  """
  from step_jax.train import run

  if is_export(files.path(workdir)):
    raise RunError(f'{workdir}: is an export, which is read-only: train in another work directory')
  validate(config)
  _, stage = of_stage(config.stage)
  return run.train(stage.hook('build'), config, workdir, change_config)


def validate(config: 'ml_collections.ConfigDict') -> None:
  """Checks a configuration before anything is read or compiled.

  Raises:
    ConfigError: a value is not valid, or there is no such stage.
  """
  config_lib.validate(config)
  _, stage = of_stage(config.stage)
  check = stage.hook('check')
  if check:
    check(config)


def abstract_step(
  config: 'ml_collections.ConfigDict', size: tuple[int, int]
) -> 'stage_lib.AbstractStep | None':
  """Shapes of the training step of a stage on images of `size` (height, width).

  None if the stage has no step on images.
  """
  _, stage = of_stage(config.stage)
  abstract = stage.hook('abstract')
  return abstract and abstract(config, size)


def find(workdir: str | os.PathLike) -> tuple[Method, files.Path]:
  """The method of a run, and the folder of its best trained stage that can translate.

  Args:
    workdir: work directory of the run, the folder of a stage, or an export, see `names.resolve`.

  Raises:
    RunError: there is no such stage, or there are stages of several methods.
  """
  from step_jax.train import checkpoint

  workdir = resolve(workdir)
  if is_export(workdir):
    return of_stage(read_config(workdir).stage)[0], workdir
  if (workdir / config_lib.FILE).is_file() and checkpoint.exists(workdir):
    for method in METHODS.values():
      if config_lib.read(workdir).stage in method.translating:
        return method, workdir
  trained = [
    (method, workdir / stage)
    for method in METHODS.values()
    for stage in method.translating
    if checkpoint.exists(workdir / stage)
  ]
  if len({method.name for method, _ in trained}) > 1:
    folders = ', '.join(str(folder) for _, folder in trained)
    raise RunError(f'{workdir}: holds runs of several methods: give the folder of one: {folders}')
  if not trained:
    able = [method for method in METHODS.values() if method.translating]
    begun = [
      method
      for method in able
      if any(checkpoint.exists(workdir / stage.name) for stage in method.stages)
    ]
    *others, last = (method.translating[-1] for method in begun or able)
    stages = f'{", ".join(others)} or {last}' if others else last
    wrong = '' if begun else ', or give the work directory of another run'
    raise RunError(f'{workdir}: has no trained generator: train the stage {stages} first{wrong}')
  return trained[0]


def read_config(folder: files.Path) -> 'ml_collections.ConfigDict':
  """Reads the configuration of a trained stage or of an export.

  Raises:
    RunError: it is missing or damaged.
  """
  if not is_export(folder):
    return config_lib.read(folder)
  from step_jax.methods import exported

  return exported.read_config(folder)


def load(workdir: str | os.PathLike, which: str = 'latest') -> Run:
  """Opens a trained run.

  Args:
    workdir: work directory of the run, or the folder of one of its stages; or an export; or
      `shipped:NAME`, an export in this package, see `shipped`; or `hf://OWNER/NAME[@REVISION]`, an
      export on the Hugging Face hub.
    which: `latest` or `best` checkpoint.

  Raises:
    RunError: no trained stage can translate yet, or the export cannot be downloaded or is damaged.
  """
  from step_jax.methods import exported

  method, folder = find(workdir)
  if is_export(folder):
    run = exported.open_run(folder, method.hook('restore'), which)
  else:
    run = method.hook('run')(folder, which)
  run.folder = folder
  return run


def roles(config: 'ml_collections.ConfigDict', opened: 'data.PairSet') -> dict[str, str]:
  """Role -> name in an example; see `data.roles`.

  Args:
    config: configuration of a stage.
    opened: its data set.
  """
  from step_jax import data

  method, _ = of_stage(config.stage)
  own = method.hook('roles')
  return own(config, opened) if own else data.roles(opened, config.data.direction)


def encode(run: Run, example: Mapping[str, Any], **options: Any) -> Any:
  """Encodes an example or a batch of examples.

  Args:
    run: a trained run.
    example: arrays by role, see `roles`; must include the `code_roles` of the method.
    options: options of `Run.encode`.
  """
  image, *others = METHODS[run.method].code_roles
  return run.encode(example[image], **{role: example[role] for role in others}, **options)
