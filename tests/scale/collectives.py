"""Prints the communication of eight devices in a step of stage 3: operation and bytes, as JSON.

Usage: JAX_PLATFORMS=cpu collectives.py [--size PX] [--fsdp] [--cpu]

Compiles for eight CPU devices, but with the convolutions of accelerators; with --cpu, with those of
CPUs. Nothing is computed or allocated.
"""

import argparse
import json
import os

os.environ['XLA_FLAGS'] = (
  f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
)

import jax

from step_jax import methods
from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.methods.step import cases
from step_jax.train import mesh as mesh_lib


def main() -> None:
  """Compiles the step, and reads the program."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--size', type=int, default=256)
  parser.add_argument('--fsdp', action='store_true')
  parser.add_argument('--cpu', action='store_true')
  given = parser.parse_args()
  if not given.cpu:
    jax.lax.platform_dependent = lambda *args, default, **others: default(*args)
  settings = Settings.of('translate_step', batch=8, size=given.size)
  config = cases.make_config(settings, 'finetune')
  step = methods.abstract_step(config, config.data.crop)
  mesh = mesh_lib.make_mesh()
  shardings = mesh_lib.of_state(mesh, step.state, given.fsdp)
  lie = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  state = jax.tree.map(lie, step.state, shardings)
  batch = jax.tree.map(lambda x: lie(x, mesh_lib.split(mesh)), step.batch)
  frozen = jax.tree.map(lambda x: lie(x, mesh_lib.replicated(mesh)), step.frozen)
  compiled = step.step.jitted_step(shardings).lower(state, batch, frozen).compile()
  print(json.dumps(case.collective_bytes(compiled.as_text())))


if __name__ == '__main__':
  main()
