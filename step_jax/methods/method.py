"""The contract between methods and everything else.

Applications (the command line, evaluate, report, demo, export, reproduce, bench) see a method
through these classes alone. Nothing here imports JAX, and a method names its parts by the modules
that hold them, which are imported when they are used: `step-jax --help` stays quick.
"""

from collections.abc import Callable, Mapping
import dataclasses
import importlib
import pkgutil
from typing import Any, Protocol

import ml_collections
import numpy as np


@dataclasses.dataclass(frozen=True)
class Option:
  """An option of `translate`, as a flag of the command line and a control of the demo page.

  Attributes:
    name: of the flag, without dashes; as an argument of `Run.translate` with underscores.
    help: one line, with the unit.
    default: value where none is given.
    kind: text -> value; raises `argparse.ArgumentTypeError` for values out of range.
    choices: the values that it may have, where these can be listed.
    nargs: as in `argparse`: how many values it takes, or None for one.
    metavar: what the help shows for the value.
  """

  name: str
  help: str
  default: Any = None
  kind: Callable[[str], Any] = str
  choices: tuple[str, ...] = ()
  nargs: str | int | None = None
  metavar: str | tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Preset:
  """Settings of a method by name, as a row of an ablation or a task: `--preset NAME`.

  Attributes:
    meaning: one line.
    fields: stage -> dotted name of a field -> its value; stages left out keep their defaults.
  """

  meaning: str
  fields: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage of training: one configuration file, one folder of a run.

  Attributes:
    name: of `configs/NAME.py` and of the folder; unique over all methods.
    module: name of the module that holds `build(config, workdir, mesh) -> train.stage.Training`
      and, where its step can be compiled without data, `abstract(config, size) ->
      train.stage.AbstractStep`; it may hold `check(config)`, which raises ConfigError for
      combinations of fields that do not work. Or these functions by name.
  """

  name: str
  module: str | Mapping[str, Callable]

  def hook(self, name: str) -> Callable | None:
    """A function of the stage; None where it has none of that name."""
    if isinstance(self.module, str):
      return getattr(importlib.import_module(self.module), name, None)
    return self.module.get(name)


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to translate images: its stages, and what a trained run of it can do.

  Hooks are given as `package.module:attribute`; those that are empty do not exist.

  Attributes:
    name: in `methods.METHODS`.
    title: one line for help texts.
    stages: in the order in which they are trained.
    translating: names of the stages whose folder can translate, the best one first.
    run: `(folder, which) -> Run`: opens the folder of a translating stage at its `latest` or
      `best` checkpoint.
    needs_code: whether `translate` needs a style; methods that have one of their own do not.
    options: of `translate`.
    presets: by name; no data set has the same. The file of every stage passes them to
      `config.make`; `--preset NAME` or `configs/FILE.py:DATA,preset=NAME` applies one.
    session: subclass of `evaluate.session.Session`.
    measures: `(function, groups)` pairs of scores that only this method has: the function takes the
      session and yields `evaluate.scores.Score` or `Skipped`.
    galleries: `run -> {title: uint8 [H, W, 3]}` for the report.
    warnings: `signs -> lines`: what bodes ill in the latest numbers of evaluations in training.
    programs: `run -> export.programs.Bundle`.
    page: `(workdir, which, folder) -> demo.server.Page`; `folder` is for files that it offers.
    tables: name -> `reproduce` table.
    cases: module of its benchmarks, see `bench.measure`.
    quickstart: `quickstart.Recipe`.
  """

  name: str
  title: str
  stages: tuple[Stage, ...]
  translating: tuple[str, ...]
  run: str
  needs_code: bool = True
  options: tuple[Option, ...] = ()
  presets: Mapping[str, Preset] = dataclasses.field(default_factory=dict)
  session: str = ''
  measures: str = ''
  galleries: str = ''
  warnings: str = ''
  programs: str = ''
  page: str = ''
  tables: str = ''
  cases: str = ''
  quickstart: str = ''

  def hook(self, name: str) -> Any:
    """What a hook names, imported now; None where the method has no such hook."""
    target = getattr(self, name)
    return pkgutil.resolve_name(target) if target else None


class Run(Protocol):
  """A trained run in use.

  Images are uint8 `[H, W, 3]` or `[N, H, W, 3]`; results have the same leading axes. A code is what
  the method calls a style, an array or a tree of arrays with the same leading axes: `[Z]` for StEP,
  `[n, 512]` for pSp, `[L, C]` and a mask `[L]` for SuperStyleNet.

  Attributes:
    method: its name.
    config: of the stage that trained it.
    step: of its checkpoint.
    params: what its functions take first, a tree of arrays.
  """

  method: str
  config: ml_collections.ConfigDict
  step: int
  params: Any

  def encode(self, images: np.ndarray, labels: np.ndarray | None = None) -> Any:
    """Codes of images; `labels` are integer label maps `[N, H, W]`, for methods that need them."""

  def translate(self, sources: np.ndarray, code: Any = None, **options: Any) -> np.ndarray:
    """Translations of sources in the style of a code, one for each or one for all."""

  def draw(self, count: int, seed: int = 0, **options: Any) -> Any:
    """New codes `[count, …]`; the same seed draws the same ones."""

  def sample(self, sources: np.ndarray, count: int, seed: int = 0, **options: Any) -> np.ndarray:
    """Translations in `count` drawn styles: `[count, …]` of the shape of `sources`."""

  def interpolate(
    self, sources: np.ndarray, a: np.ndarray, b: np.ndarray, steps: int = 8
  ) -> np.ndarray:
    """Translations in styles on the line from image `a` to `b`, both included: `[steps, …]`."""
