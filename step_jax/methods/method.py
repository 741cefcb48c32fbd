"""The interface between methods and the rest of the package.

Applications (command line, evaluate, report, demo, export, reproduce, bench) use methods only
through these classes. Nothing here imports JAX. Parts of a method are given by the names of their
modules, which are imported on first use, so that `step-jax --help` stays fast.
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
  """An option for using a run: a command-line flag and a control of the demo page.

  Flags with the same name must have the same meaning for all methods.

  Attributes:
    name: name of the flag, without dashes.
    help: description in one line, with the unit.
    of: function with an argument of this name (with underscores): `translate`, `draw` or `encode`
      of the run, `interpolate` of its codes, or the hook `codes` of the method. `step-jax
      translate` has the options of the first four; those of `encode` are called `--style-NAME`.
      `step-jax codes` has those of `encode` and `codes`.
    default: default value.
    kind: text -> value; raises `argparse.ArgumentTypeError` for values out of range.
    choices: valid values, if they can be listed.
    nargs: number of values, see `argparse`; None: one value.
    metavar: placeholder of the value in the help.
    read: for options whose values (nargs `+`) are files, one per input (for `encode`: per style
      image), given in order or as one folder with the names of the images:
      `package.module:function`, `(run, path, image) -> value`. The function in `of` is then called
      with this value for one image at a time; `image` is its argument.
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
    """Name of the argument of the function in `of`."""
    return self.name.replace('-', '_')


@dataclasses.dataclass(frozen=True)
class Importer:
  """An action of `step-jax weights` that creates a run from a published file.

  Attributes:
    name: name of the action, such as `import-NAME`.
    help: description in one line.
    metavar: placeholder of the file in the help.
    target: `package.module:function`, `(file, workdir, **options) -> folder`.
    nargs: number of files, see `argparse`; the function then gets a list.
    options: options of the function, which has its own defaults.
  """

  name: str
  help: str
  metavar: str
  target: str
  nargs: str | None = None
  options: tuple[Option, ...] = ()

  def function(self) -> Callable[..., Any]:
    """Imports the function."""
    return pkgutil.resolve_name(self.target)


@dataclasses.dataclass(frozen=True)
class Preset:
  """Named settings of a method, such as a row of an ablation or a task: `--preset NAME`.

  Attributes:
    meaning: description in one line.
    fields: stage -> dotted name of a field -> value; other stages keep their defaults.
  """

  meaning: str
  fields: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Stage:
  """A training stage, with one configuration file and one folder of a run.

  Attributes:
    name: name of the folder, and in `step-jax train NAME`; unique over all methods.
    module: name of the module with `build(config, workdir, mesh) -> train.stage.Training` and, if
      its step can be compiled without data, `abstract(config, size) -> train.stage.AbstractStep`.
      It may have `check(config)`, which raises ConfigError for invalid combinations of fields. Or a
      dict of these functions by name.
    config: path of its configuration file, for methods outside of this package; empty:
      `configs/NAME.py`.
  """

  name: str
  module: str | Mapping[str, Callable]
  config: str = ''

  def hook(self, name: str) -> Callable | None:
    """A function of the stage; None if it does not exist."""
    if isinstance(self.module, str):
      return getattr(importlib.import_module(self.module), name, None)
    return self.module.get(name)


@dataclasses.dataclass(frozen=True)
class Bench:
  """A workload that `step-jax bench` measures.

  Attributes:
    defaults: fields of `bench.Settings` -> values for a few minutes on two cores.
    fields: fields of `bench.Settings` that it uses.
    stages: stages whose training step it measures, the default first; empty: another workload.
    peers: frameworks to compare with.
    nets: feature networks of the peers.
    exact: whether float32 products use full precision on both sides, whatever the settings.
  """

  defaults: Mapping[str, Any]
  fields: tuple[str, ...] = ('size', 'batch', 'width', 'dtype')
  stages: tuple[str, ...] = ()
  peers: tuple[str, ...] = ()
  nets: tuple[str, ...] = ('vgg16',)
  exact: bool = False


@dataclasses.dataclass(frozen=True)
class Method:
  """A translation method: its stages, and the functions of a trained run.

  Hooks are given as `package.module:attribute`; empty hooks do not exist.

  Attributes:
    name: name in `methods.METHODS`.
    title: description in one line, for help texts.
    stages: stages in the order of training.
    translating: names of the stages that can translate, best first.
    run: `(folder, which) -> Run`: opens the folder of a translating stage at its `latest` or
      `best` checkpoint.
    needs_code: whether `translate` needs a style.
    source_role: role, in examples of the data, of the input of `Run.translate`: `source`, or
      `labels` for label maps.
    code_roles: roles of the inputs of `Run.encode`: that of its images, then its arguments by name.
    roles: `(config, data set) -> {role: name in an example}`; empty: `data.roles`.
    options: options for using a run.
    read_source: `(run, path, half, resize) -> (source, picture)`: reads an input file of
      `translate`, and returns the input of `Run.translate` and an image uint8 `[H, W, 3]` to
      display; `half` is `left` or `right` for one half of an A|B image, otherwise empty; `resize`
      is the shorter side in pixels, 0 keeps the size. Empty hook: an RGB image.
    codes: `(**options) -> Encoder`: encodes images without a trained run, for methods whose codes
      depend only on images; its arguments are the options with `of='codes'`.
    presets: presets by name, which must differ from the names of data sets. The configuration file
      of every stage passes them to `config.make`; `--preset NAME` or
      `configs/FILE.py:DATA,preset=NAME` applies one.
    session: subclass of `evaluate.session.Session`; empty: that class.
    measures: `(function, groups)` pairs for scores that only this method has: the function gets the
      session and yields `evaluate.scores.Score` or `Skipped`. A measure for all methods is skipped
      if all of its groups are among these.
    galleries: `run -> {title: uint8 [H, W, 3]}` for the report; empty: `report.galleries`.
    warnings: `signs -> lines`: warnings about the latest evaluation scores in training.
    programs: `run -> export.programs.Bundle`.
    restore: `(config, step, tree) -> Run`: creates a run from the arrays of that bundle, as dicts
      of dicts; raises ValueError or KeyError for arrays that do not fit the configuration.
    page: `(workdir, which, folder) -> demo.server.Page`; `folder` is for downloads.
    tables: name -> `reproduce` table.
    benches: benchmarks by name, unique over all methods.
    cases: module of the benchmarks: `cases(settings) -> [bench.case.Case]`; `make_config(settings,
      stage)`, a configuration of that size; and `step_case(settings, stage)`, a training step. If
      there are peers: `random_inputs(settings, stage)` and `step_variants(settings, *inputs)`, see
      `bench.memory`.
    importers: actions of `step-jax weights`.
    convert: `(path, name) -> weights.own_format.Weights`, or None: used by `step-jax weights
      convert` for networks of only this method.
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
    """Imports the target of a hook; None if the method has no such hook."""
    target = getattr(self, name)
    return pkgutil.resolve_name(target) if target else None


class Encoder(Protocol):
  """An encoder of images to codes.

  A code represents a style: an array, or a tree of arrays, with the leading axes of the images:
  `[Z]` for StEP, `[n, 512]` for pSp, `[L, C]` and a mask `[L]` for SuperStyleNet. A tree has
  `interpolate(other, share)`. Its encoder has, for files, `pack(code) -> array`, with NaN for
  missing codes, and `unpack(array) -> code`, which raises a one-line ValueError for arrays of
  another shape.

  Attributes:
    method: name of the method.
    code_shape: shape of the array for a code in a file.
    code_digest: a text; encoders with equal digests have interchangeable codes.
  """

  method: str
  code_shape: tuple[int, ...]
  code_digest: str

  def encode(self, images: np.ndarray, **options: Any) -> Any:
    """Codes of images."""


class Run(Encoder, Protocol):
  """A trained run.

  Images are uint8 `[H, W, 3]` or `[N, H, W, 3]`; results have the same leading axes.

  Attributes:
    folder: folder of the stage that trained it; set by `methods`.
    config: configuration of that stage.
    step: step of its checkpoint.
    params: first argument of its functions, a tree of arrays.
    note: one line for users on how codes are sampled, or empty.
  """

  folder: files.Path
  config: ml_collections.ConfigDict
  step: int
  params: Any
  note: str

  def translate(self, sources: np.ndarray, code: Any = None, **options: Any) -> np.ndarray:
    """Translates sources into the style of a code: one per source, or one for all."""

  def draw(self, count: int, seed: int = 0, **options: Any) -> Any:
    """Samples codes `[count, …]`; the same seed gives the same codes."""

  def sample(self, sources: np.ndarray, count: int, seed: int = 0, **options: Any) -> np.ndarray:
    """Translates sources into `count` sampled styles: `[count, …]` with the shape of `sources`."""

  def interpolate(
    self, sources: np.ndarray, a: np.ndarray, b: np.ndarray, steps: int = 8
  ) -> np.ndarray:
    """Translates sources into styles on the line from image `a` to `b`, inclusive: `[steps, …]`."""
