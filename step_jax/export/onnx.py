"""Programs as ONNX, by jax2onnx; TensorFlow has no part in it."""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import importlib.util
import re

import numpy as np

from step_jax.errors import RunError
from step_jax.export import programs as programs_lib
from step_jax.export.programs import Program
from step_jax.models import convolutions


def check(size: int, smallest: int, multiple: int) -> None:
  """Makes sure that the converter is there, and can do that size.

  Raises:
    RunError: it is not, or cannot.
  """
  if size < smallest or size % multiple:
    raise RunError(f'--onnx {size}: give a multiple of {multiple}, at least {smallest}')
  if not all(map(importlib.util.find_spec, ('jax2onnx', 'onnx', 'onnx_ir'))):
    raise RunError(
      "--onnx wants a converter: pip install -e '.[onnx]' && pip install --no-deps jax2onnx"
    )


def convert(program: Program, parameters: Mapping[str, np.ndarray], size: int) -> bytes:
  """A program as an ONNX file, its parameters inside.

  The batch stays symbolic; of the size jax2onnx cannot (0.17 finds no origin of `8*h`).

  Args:
    program: as `programs` gives it.
    parameters: of all programs, by name.
    size: side of the pictures.
  """
  import jax2onnx

  own = {name: parameters[name] for name in program.parameters}
  inputs = {
    name: (re.sub(r'(\d+\*)?[hw]\b', str(size), shape), dtype)
    for name, (shape, dtype) in program.inputs.items()
  }
  with _plain_convolutions():
    model = jax2onnx.to_onnx(
      functools.partial(program.function, own),
      programs_lib.arguments(inputs, ()),
      model_name=program.output,
      input_names=list(inputs),
      output_names=[program.output],
    )
  return model.SerializeToString()


@contextlib.contextmanager
def _plain_convolutions() -> Iterator[None]:
  """The converter knows no programs that differ by platform, as `conv3x3` makes them."""
  before = convolutions.conv3x3
  convolutions.conv3x3 = convolutions.conv
  try:
    yield
  finally:
    convolutions.conv3x3 = before
