"""Writes the folder of an export: programs, parameters and documentation."""

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
import re
import shutil

import jax
import jaxlib
from safetensors import numpy as safetensors_numpy

import step_jax
from step_jax import config as config_lib
from step_jax import methods, untrusted
from step_jax.errors import ConfigError, RunError, shown
from step_jax.export import onnx, readme
from step_jax.export.programs import Bundle, Program
from step_jax.methods.exported import FORMAT, KIND, PATHS
from step_jax.methods.names import MANIFEST, PARAMETERS

EXAMPLE = 'load_example.py'
LICENCE = (
  'The programs and load_example.py are part of step_jax (Apache-2.0). The parameters were trained '
  'on the images named in config.data.path, with the feature network named in config.features. '
  'Their licences determine how the parameters may be used.'
)


def write(
  run: methods.Run,
  out: str | pathlib.Path,
  onnx_size: int = 0,
  results: Mapping | None = None,
  licence: str = readme.OTHER,
) -> pathlib.Path:
  """Writes a run as files that work without step_jax; docs/export.md describes them.

  The folder is created atomically. It replaces an existing export.

  Args:
    run: run, from `step_jax.load`.
    out: output folder.
    onnx_size: if above zero, also write every program as ONNX for squares of this size, px.
    results: scores for the model card, from `step-jax evaluate`; those of another stage or
      checkpoint are ignored.
    licence: licence of the parameters for the model card, such as `cc-by-4.0`.

  Returns:
    The folder.

  Raises:
    RunError: the folder exists and is not an export, or ONNX cannot be written.
    ConfigError: the licence is not an identifier.
  """
  if not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', licence):
    raise ConfigError(f'--licence {shown(licence)}: give an identifier as cc-by-4.0, in lower case')
  out = pathlib.Path(out)
  _check_free(out)
  bundle = _bundle(run)
  if onnx_size:
    onnx.check(onnx_size, bundle.smallest, bundle.multiple)
  out.parent.mkdir(parents=True, exist_ok=True)
  part = out.with_name(f'.{out.name}.{os.getpid()}.part')
  old = out.with_name(f'.{out.name}.{os.getpid()}.old')
  try:
    part.mkdir()
    _fill(part, run, bundle, onnx_size, results, licence)
    if out.exists():
      out.replace(old)
    part.replace(out)
  finally:
    for folder in (part, old):
      shutil.rmtree(folder, ignore_errors=True)
  return out


def _check_free(out: pathlib.Path) -> None:
  if not out.exists() or (out.is_dir() and not any(out.iterdir())):
    return
  try:
    kind = untrusted.read_json((out / MANIFEST).read_text())['format']
  except (OSError, ValueError, KeyError):
    kind = ''
  if not str(kind).startswith(f'{KIND}/'):
    raise RunError(f'{out}: is there already, and is no export: choose another --out')


def _bundle(run: methods.Run) -> Bundle:
  export = methods.METHODS[run.method].hook('programs')
  if export is None:
    raise RunError(f'--workdir: runs of {run.method} cannot be exported')
  return export(run)


def _fill(
  folder: pathlib.Path,
  run: methods.Run,
  bundle: Bundle,
  onnx_size: int,
  results: Mapping | None,
  licence: str,
) -> None:
  arrays = bundle.arrays
  # Only one entry, because the library writes several in random order.
  safetensors_numpy.save_file(dict(arrays), folder / PARAMETERS, {'format': FORMAT})
  for name, program in bundle.programs.items():
    (folder / _file(name)).write_bytes(program.exported.serialize())
    if onnx_size:
      (folder / f'{name}.onnx').write_bytes(onnx.convert(program, arrays, onnx_size))
  shutil.copyfile(bundle.example, folder / EXAMPLE)
  manifest = _manifest(run, bundle)
  ours = results and (results['stage'], results['step']) == (run.config.stage, run.step)
  card = readme.text(manifest, bundle.usage, results if ours else None, licence)
  (folder / 'README.md').write_text(card, 'utf-8')
  manifest['files'] = {path.name: _digest(path) for path in sorted(folder.iterdir())}
  (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')


def _file(name: str) -> str:
  return f'{name}.stablehlo'


def _digest(path: pathlib.Path) -> dict:
  data = path.read_bytes()
  return {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}


def _manifest(run: methods.Run, bundle: Bundle) -> dict:
  exported = [program.exported for program in bundle.programs.values()]
  return {
    'format': FORMAT,
    'step_jax': step_jax.__version__,
    'jax': jax.__version__,
    'jaxlib': jaxlib.__version__,
    'calling_convention': exported[0].calling_convention_version,
    'platforms': list(exported[0].platforms),
    'method': run.method,
    'stage': run.config.stage,
    'step': run.step,
    'licence': LICENCE,
    'programs': {name: _describe(name, program) for name, program in bundle.programs.items()},
    'parameters': {
      name: {'shape': list(array.shape), 'dtype': str(array.dtype)}
      for name, array in bundle.arrays.items()
    },
    'config': _config(run),
  }


def _describe(name: str, program: Program) -> dict:
  avals, outs = program.exported.in_avals, program.exported.out_avals
  inputs = avals[len(program.parameters) :]
  return {
    'file': _file(name),
    'does': program.does,
    'parameters': list(program.parameters),
    'inputs': [
      {'name': label, **_array(aval)} for label, aval in zip(program.inputs, inputs, strict=True)
    ],
    'outputs': [{'name': program.output, **_array(outs[0])}],
    'constraints': ['b, h, w >= 1', *program.constraints],
  }


def _array(aval: jax.core.ShapedArray) -> dict:
  shape = [side if isinstance(side, int) else str(side) for side in aval.shape]
  return {'shape': shape, 'dtype': str(aval.dtype)}


def _config(run: methods.Run) -> dict:
  fields = dict(config_lib.flatten(run.config))
  return {
    name: pathlib.Path(value).name if name in PATHS else value for name, value in fields.items()
  }
