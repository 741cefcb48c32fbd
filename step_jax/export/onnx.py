"""Converts programs to ONNX with jax2onnx, without TensorFlow."""

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
  """Checks that the converter is installed and supports the image size.

  Raises:
    RunError: it is not, or does not.
  """
  if size < smallest or size % multiple:
    raise RunError(f'--onnx {size}: give a multiple of {multiple}, at least {smallest}')
  if not all(map(importlib.util.find_spec, ('jax2onnx', 'onnx', 'onnx_ir'))):
    raise RunError(
      "--onnx wants a converter: pip install -e '.[onnx]' && pip install --no-deps jax2onnx"
    )


def convert(program: Program, parameters: Mapping[str, np.ndarray], size: int) -> bytes:
  """Converts a program to an ONNX file that includes its parameters.

  The batch size stays symbolic. The image size is fixed, because jax2onnx 0.17 does not support
  symbolic sizes such as `8*h`.

  Args:
    program: program to convert.
    parameters: parameters of all programs, by name.
    size: side of the images, px.
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
  """Replaces `conv3x3`, because the converter does not support platform-dependent programs."""
  before = convolutions.conv3x3
  convolutions.conv3x3 = convolutions.conv
  try:
    yield
  finally:
    convolutions.conv3x3 = before
