"""What a trained run computes, as StableHLO for every platform, batch and size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses

import flax.traverse_util
import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from step_jax import infer
from step_jax.infer import functions
from step_jax.methods import networks
from step_jax.models import generator as generator_lib

PLATFORMS = ('cpu', 'cuda', 'tpu')
# The style encoder halves a picture four times.
_MIN_STYLE = 16
_MULTIPLE = generator_lib.SIZE_MULTIPLE


@dataclasses.dataclass(frozen=True)
class Program:
  """One exported function, `(parameters, *inputs) -> output`.

  Attributes:
    function: takes a dict `name -> array` of parameters first.
    exported: the same, lowered.
    parameters: their names, in the order in which the flat program takes them.
    inputs: further arguments, name -> symbolic shape and type.
    output: name of the result.
    constraints: on the symbols in the shapes.
    does: what it computes, in words.
  """

  function: Callable
  exported: export.Exported
  parameters: tuple[str, ...]
  inputs: Mapping[str, tuple[str, type]]
  output: str
  constraints: tuple[str, ...]
  does: str


def parameters(run: infer.Translator) -> dict[str, np.ndarray]:
  """Parameters of a run that its programs take, averaged as for translation.

  Returns:
    `NETWORK/LAYER/…/LEAF -> float32 array`, in alphabetical order.
  """
  trees = dict(run.params)
  if run.samplers:
    trees[run.sampler_name] = run.samplers[run.sampler_name].params
  flat = flax.traverse_util.flatten_dict(trees, sep='/')
  # Safetensors writes the memory of an array, whatever its order.
  return {name: np.ascontiguousarray(flat[name], np.float32) for name in sorted(flat)}


def programs(run: infer.Translator, platforms: Sequence[str] = PLATFORMS) -> dict[str, Program]:
  """Exports what a run can do: `encode`, `generate`, and `sample` where it has a mapper stage.

  `encode` takes pictures of any size from 16 px a side, `generate` sizes that are multiples of 8.

  Args:
    run: as `step_jax.load` gives it.
    platforms: that the programs are lowered for.
  """
  config, known = run.config, parameters(run)
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  z_dim = config.model.z_dim

  def lower(function, network, inputs, output, constraints, does):
    names = tuple(name for name in known if name.startswith(f'{network}/'))
    taken = {name: jax.ShapeDtypeStruct(known[name].shape, known[name].dtype) for name in names}
    function = _flat(function)
    with _no_paths():
      exported = export.export(jax.jit(function), platforms=platforms)(
        taken, *arguments(inputs, constraints)
      )
    return Program(function, exported, names, inputs, output, constraints, does)

  found = {
    'encode': lower(
      lambda params, pictures: functions.encode(encoder, params, pictures),
      'style_encoder',
      {'pictures': ('b, h, w, 3', jnp.uint8)},
      'codes',
      (f'h >= {_MIN_STYLE}', f'w >= {_MIN_STYLE}'),
      'style codes of pictures (RGB, 0..255)',
    ),
    'generate': lower(
      lambda params, sources, codes: functions.generate(generator, params, sources, codes),
      'generator',
      {
        'sources': (f'b, {_MULTIPLE}*h, {_MULTIPLE}*w, 3', jnp.uint8),
        'codes': (f'b, {z_dim}', jnp.float32),
      },
      'pictures',
      (),
      'translations (RGB, 0..255) of source pictures in the styles of codes',
    ),
  }
  if run.samplers:
    sampler = run.samplers[run.sampler_name]
    found['sample'] = lower(
      lambda params, noise: sampler.apply(params[sampler.name], noise),
      sampler.name,
      {'noise': (f'b, {z_dim}', jnp.float32)},
      'codes',
      (),
      f'new style codes (by the {sampler.name}) from noise, which is drawn from the standard '
      'normal distribution',
    )
  return found


def _flat(function: Callable) -> Callable:
  """Takes parameters by flat names in place of trees."""

  def call(flat: Mapping, *arguments):
    return function(flax.traverse_util.unflatten_dict(flat, sep='/'), *arguments)

  return call


def arguments(inputs: Mapping, constraints: Sequence[str]) -> list[jax.ShapeDtypeStruct]:
  """Arguments of symbolic shapes; the same letter is the same number in all of them.

  Args:
    inputs: name -> shape, as `jax.export.symbolic_shape` takes it, and type.
    constraints: on its letters.
  """
  scope = export.SymbolicScope(constraints)
  return [
    jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
    for shape, dtype in inputs.values()
  ]


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
  """Programs would name the source files of whoever exported them."""
  name = 'jax_traceback_in_locations_limit'
  before = getattr(jax.config, name)
  jax.config.update(name, 0)
  try:
    yield
  finally:
    jax.config.update(name, before)
