"""Benchmark case of a training step of any method."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from step_jax import methods
from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.train import mesh as mesh_lib


def step_case(
  settings: Settings,
  config: ml_collections.ConfigDict,
  make_batch: Callable[[Mapping[str, jax.ShapeDtypeStruct]], dict],
  frozen: dict,
  variants: Callable[[Any, dict, dict], Sequence[case.Variant]],
  unit: str = 'images',
) -> case.Case:
  """A training step of a stage, on all devices as in training.

  Args:
    settings: settings of the benchmark.
    config: configuration of the stage, with the sizes of the benchmark.
    make_batch: shapes of a batch -> the batch, on the host.
    frozen: frozen parameters of the step, on the host.
    variants: `(state, frozen, batch)`, all on the host -> the same step in PyTorch.
    unit: name of the items in a batch.
  """
  mesh_lib.check_batch_size(config.batch_size)
  step = methods.abstract_step(config, config.data.crop)
  batch = make_batch(step.batch)
  mesh = mesh_lib.make_mesh()
  shardings = mesh_lib.of_state(mesh, step.state, settings.fsdp)
  state = jax.jit(step.step.init, out_shardings=shardings)(jax.random.key(0))
  # The step donates its state.
  initial = jax.device_get(state)
  inputs = mesh_lib.to_global(mesh, batch), mesh_lib.put_replicated(mesh, frozen)
  compiled, program = case.compile_(step.step.jitted_step(shardings), state, *inputs)
  work = case.training(compiled, state, *inputs)
  return case.Case(
    settings.name, config.batch_size, unit, work, program, lambda: variants(initial, frozen, batch)
  )
