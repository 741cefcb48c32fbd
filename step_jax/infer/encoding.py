"""Style codes of image files, from a trained run or from a method that needs no training."""

from collections.abc import Mapping, Sequence
import itertools
import json
import os
from typing import Any

import numpy as np

from step_jax import files, methods
from step_jax.errors import ConfigError
from step_jax.infer import codes, paths, reading
from step_jax.infer import options as options_lib


def write(
  inputs: Sequence[str | os.PathLike],
  out: str | os.PathLike,
  *,
  workdir: str | os.PathLike = '',
  method: str = '',
  which: str = 'latest',
  side_by_side: bool = False,
  options: Mapping[str, Any] | None = None,
) -> list[files.Path]:
  """Writes `NAME.npy` for each image `NAME.jpg`, float32 `Encoder.code_shape`, and `codes.json`.

  Existing codes of the same encoder are kept, and inputs are never overwritten. Rows of NaN mark
  parts without a code, such as regions that are not in the image.

  Args:
    inputs: images, or folders of images.
    out: folder for the codes; created if missing.
    workdir: work directory of a trained run. Give this or `method`.
    method: name of a method whose codes need no training.
    which: `latest` or `best` checkpoint.
    side_by_side: whether files are A|B pairs; the target half is encoded.
    options: flags of the method, with underscores -> values.

  Returns:
    Paths of the codes.

  Raises:
    UserError: the run or an image cannot be used; two codes would have the same name, or overwrite
      an input; or `out` has codes of another encoder. Names are checked before anything is written.
  """
  inputs, out = [files.path(path) for path in inputs], files.path(out)
  images = paths.expand(inputs)
  outputs = list(itertools.chain(*paths.plan(images, out, codes.FILE, suffix=codes.SUFFIX)))
  written = [out / codes.FILE, *outputs]
  paths.check_kept([*inputs, *images], out, written)
  run, given = _open(workdir, method, which, options or {})
  record = codes.record_of(run, out)
  reader = reading.Reader(run, given, side_by_side)
  own_files = reader.files_of_styles(images)
  paths.check_kept([path for own in own_files for _, path in own], out, written)
  for image, own, output in zip(images, own_files, outputs, strict=True):
    code, _ = reader.style(image, own)
    array = np.asarray(codes.of_trees(run, 'pack')(code), np.float32)
    files.make_folder(out)
    files.write_array(output, array)
    record['codes'][output.name] = os.fspath(image)
  files.write_text(out / codes.FILE, json.dumps(record, indent=2) + '\n')
  return outputs


def _open(
  workdir: str | os.PathLike, method: str, which: str, options: Mapping[str, Any]
) -> tuple[methods.Encoder, options_lib.Given]:
  if workdir:
    run = methods.load(workdir, which)
    given = options_lib.Given(run.method, 'codes', options)
    given.refuse('codes', 'is only for codes without a run (--method NAME): omit it')
    return run, given
  make = methods.METHODS[method].hook('codes')
  if make is None:
    raise ConfigError(f'--method {method}: its codes need a trained run: give --workdir')
  given = options_lib.Given(method, 'codes', options)
  return make(**given.of('codes')), given
