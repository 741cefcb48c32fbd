"""The contract between methods and everything else.

Applications (the command line, evaluate, report, demo, export, reproduce, bench) see a method
through these classes alone. Nothing here imports JAX, and a method names its parts by the modules
that hold them, which are imported when they are used: `step-jax --help` stays quick.
"""

import argparse
from collections.abc import Callable, Mapping
import dataclasses
import importlib
import pkgutil
from typing import Any, Protocol

import ml_collections
import numpy as np

from step_jax import files


def positive(text: str) -> int:
  """A kind of option: whole numbers of at least 1."""
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 1')
  return int(text)


@dataclasses.dataclass(frozen=True)
class Option:
  """An option of using a run: a flag of the command line and a control of the demo page.

  Flags of one name must mean the same for all methods that have it.

  Attributes:
    name: of the flag, without dashes.
    help: one line, with the unit.
    of: the function that takes it, as an argument of this name with underscores: `translate`,
      `draw` or `encode` of the run, `interpolate` of its codes, or the method's hook `codes`.
      `step-jax translate` has those of the first four, where options of `encode` are called
      `--style-NAME`; `step-jax codes` has those of `encode` and `codes`.
    default: value where none is given.
    kind: text -> value; raises `argparse.ArgumentTypeError` for values out of range.
    choices: the values that it may have, where these can be listed.
    nargs: as in `argparse`: how many values it takes, or None for one.
    metavar: what the help shows for the value.
    read: of options whose values (nargs `+`) are files, one for each input (of `encode`: for each
      style image), given in order or as one folder, where they are called like the images:
      `package.module:function`, `(run, path, image) -> value`. The function that takes the option
      is called with that value for one image at a time; `image` is that one, as it gets it.
  """

  name: str
  help: str
  of: str = 'translate'
  default: Any = None
  kind: Callable[[str], Any] = str
  choices: tuple[str, ...] = ()
  nargs: str | int | None = None
  metavar: str | tuple[str, ...] | None = None
  read: str = ''

  @property
  def argument(self) -> str:
    """What the function that takes it calls it."""
    return self.name.replace('-', '_')


@dataclasses.dataclass(frozen=True)
class Importer:
  """A run from a file of somebody else: an action of `step-jax weights`.

  Attributes:
    name: of the action, as `import-NAME`.
    help: one line.
    metavar: what the help shows for the file.
    target: `package.module:function`, `(file, workdir, **options) -> folder`.
    nargs: as in `argparse`, where there are several files; the function then gets a list.
    options: of the function; those that are not given have its own defaults.
  """

  name: str
  help: str
  metavar: str
  target: str
  nargs: str | None = None
  options: tuple[Option, ...] = ()

  def function(self) -> Callable[..., Any]:
    """The function, imported now."""
    return pkgutil.resolve_name(self.target)


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
    name: of the folder, and of `step-jax train NAME`; unique over all methods.
    module: name of the module that holds `build(config, workdir, mesh) -> train.stage.Training`
      and, where its step can be compiled without data, `abstract(config, size) ->
      train.stage.AbstractStep`; it may hold `check(config)`, which raises ConfigError for
      combinations of fields that do not work. Or these functions by name.
    config: path of its configuration file, for methods outside of this package; by default
      `configs/NAME.py`.
  """

  name: str
  module: str | Mapping[str, Callable]
  config: str = ''

  def hook(self, name: str) -> Callable | None:
    """A function of the stage; None where it has none of that name."""
    if isinstance(self.module, str):
      return getattr(importlib.import_module(self.module), name, None)
    return self.module.get(name)


@dataclasses.dataclass(frozen=True)
class Bench:
  """Work that `step-jax bench` measures.

  Attributes:
    defaults: fields of `bench.Settings` -> values with which it takes a few minutes on two cores.
    fields: of `bench.Settings` that it depends on.
    stages: of which it measures the training step, the default first; none: other work.
    peers: others that do the same work, to compare with.
    nets: feature nets that the peers have.
    exact: whether float32 products are exact on both sides, whatever the settings allow.
  """

  defaults: Mapping[str, Any]
  fields: tuple[str, ...] = ('size', 'batch', 'width', 'dtype')
  stages: tuple[str, ...] = ()
  peers: tuple[str, ...] = ()
  nets: tuple[str, ...] = ('vgg16',)
  exact: bool = False


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
    source_role: role, in examples of the data, of what `Run.translate` takes: `source`, or `labels`
      for label maps.
    code_roles: roles of what `Run.encode` takes: that of its images, then its arguments by name.
    roles: `(config, data set) -> {role: its name in an example}`, where that depends on more fields
      than those that `data.roles` reads, which is the default.
    options: of using a run.
    read_source: `(run, path, half) -> (source, picture)`: reads an input file of `translate`, as
      `Run.translate` takes it and as an image uint8 `[H, W, 3]` to show; `half` is `left` or
      `right` where it is that half of an A|B image, else empty. By default an RGB image, scaled as
      in training.
    codes: `(**options) -> Encoder`: codes of images without a trained run, for methods whose codes
      come from images alone; its arguments are the options with `of='codes'`.
    presets: by name; no data set has the same. The file of every stage passes them to
      `config.make`; `--preset NAME` or `configs/FILE.py:DATA,preset=NAME` applies one.
    session: subclass of `evaluate.session.Session`, which by default uses the run alone.
    measures: `(function, groups)` pairs of scores that only this method has: the function takes the
      session and yields `evaluate.scores.Score` or `Skipped`. What measures runs of every method
      is left out where its groups are all among these.
    galleries: `run -> {title: uint8 [H, W, 3]}` for the report; by default those of
      `report.galleries`.
    warnings: `signs -> lines`: what bodes ill in the latest numbers of evaluations in training.
    programs: `run -> export.programs.Bundle`.
    restore: `(config, step, tree) -> Run`: a run from the arrays of that bundle, as dicts of dicts;
      raises ValueError or KeyError for arrays that do not fit the configuration.
    page: `(workdir, which, folder) -> demo.server.Page`; `folder` is for files that it offers.
    tables: name -> `reproduce` table.
    benches: its benchmarks by name; no other method has the same.
    cases: module of these: `cases(settings) -> [bench.case.Case]`; `make_config(settings, stage)`,
      a configuration of that size; and `step_case(settings, stage)`, a training step. Where there
      are peers: `random_inputs(settings, stage)`, and `step_variants(settings, *inputs)`, see
      `bench.memory`.
    importers: actions of `step-jax weights`.
    convert: `(path, name) -> weights.own_format.Weights`, or None: what `step-jax weights convert`
      stores of files of networks that only this method uses.
    quickstart: `quickstart.Recipe`.
  """

  name: str
  title: str
  stages: tuple[Stage, ...]
  translating: tuple[str, ...]
  run: str
  needs_code: bool = True
  source_role: str = 'source'
  code_roles: tuple[str, ...] = ('target',)
  roles: str = ''
  options: tuple[Option, ...] = ()
  read_source: str = ''
  codes: str = ''
  presets: Mapping[str, Preset] = dataclasses.field(default_factory=dict)
  session: str = ''
  measures: str = ''
  galleries: str = ''
  warnings: str = ''
  programs: str = ''
  restore: str = ''
  page: str = ''
  tables: str = ''
  benches: Mapping[str, Bench] = dataclasses.field(default_factory=dict)
  importers: tuple[Importer, ...] = ()
  convert: str = ''
  cases: str = ''
  quickstart: str = ''

  def hook(self, name: str) -> Any:
    """What a hook names, imported now; None where the method has no such hook."""
    target = getattr(self, name)
    return pkgutil.resolve_name(target) if target else None


class Encoder(Protocol):
  """What makes codes of images.

  A code is what the method calls a style, an array or a tree of arrays with the leading axes of the
  images: `[Z]` for StEP, `[n, 512]` for pSp, `[L, C]` and a mask `[L]` for SuperStyleNet. A tree
  has `interpolate(other, share)`; and its encoder has `pack(code) -> array`, with NaN for what has
  no code, and `unpack(array) -> code` for files, which raises ValueError, in one line, for arrays
  of another shape.

  Attributes:
    method: its name.
    code_shape: of the array that stands for a code in a file.
    code_digest: a text; codes of encoders with the same digest can be used for each other.
  """

  method: str
  code_shape: tuple[int, ...]
  code_digest: str

  def encode(self, images: np.ndarray, **options: Any) -> Any:
    """Codes of images."""


class Run(Encoder, Protocol):
  """A trained run in use.

  Images are uint8 `[H, W, 3]` or `[N, H, W, 3]`; results have the same leading axes.

  Attributes:
    folder: of the stage that trained it; `methods` sets it.
    config: of that stage.
    step: of its checkpoint.
    params: what its functions take first, a tree of arrays.
    note: one line for people on how codes are drawn, or empty.
  """

  folder: files.Path
  config: ml_collections.ConfigDict
  step: int
  params: Any
  note: str

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
