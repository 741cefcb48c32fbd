"""Prints the communication of a training step on many devices, and the efficiency that it allows.

Usage: JAX_PLATFORMS=cpu collectives.py STAGE [FIELD=VALUE …] [OPTIONS]; --help lists them

Compiles the published networks for CPU devices, but with the convolutions of accelerators; with
--cpu, with those of CPUs. Nothing is computed or allocated. Fields change the configuration. Prints
JSON:

  parameters    numbers of the trained networks
  collectives   operation -> bytes of its results in a step
  flops         of one device in a step, counted by XLA before optimization
  efficiency    chip -> computed share of the speed of one device, if communication overlaps nothing

The counts of StyleGAN2 have all communication of a step with both lazy regularisers, and the FLOPs
of one without, so its efficiency is a lower bound.
"""

import argparse
import json
import math
import os

# Chip -> peak bfloat16 FLOP/s, and bytes/s of all links between chips (Google Cloud's pages).
CHIPS = {'v4': (275e12, 300e9), 'v5e': (197e12, 200e9), 'v6e': (918e12, 400e9)}
# Share of the peak that the step of stage 3 reached on a GPU (docs/performance.md).
REACHED = 0.32
PER_DEVICE = 8
STAGES = ('pretrain', 'translate', 'finetune', 'stylegan2', 'psp', 'superstylenet')
CLASSES = 19


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  parser.add_argument('stage', choices=STAGES)
  parser.add_argument('fields', nargs='*', metavar='FIELD=VALUE')
  parser.add_argument('--devices', type=int, default=8, help='8 images each')
  parser.add_argument('--size', type=int, default=256)
  parser.add_argument('--fsdp', action='store_true')
  parser.add_argument('--cpu', action='store_true')
  return parser.parse_args()


def make_config(given: argparse.Namespace, **fields):
  """The published configuration of a stage, with random weights and 8 images for each device."""
  from step_jax import config as config_lib

  config = config_lib.load(f'{config_lib.stage_file(given.stage)}:size={given.size}')
  fields |= {
    'batch_size': PER_DEVICE * given.devices,
    'dtype': 'bfloat16',
    'features.weights': 'random',
    'init_from': '',
    'data.classes': CLASSES,
  }
  known = {name for name, _ in config_lib.flatten(config)}
  config.update_from_flattened_dict({k: v for k, v in fields.items() if k in known})
  for field in given.fields:
    name, _, text = field.partition('=')
    config_lib.set_field(config, name, text)
  return config


def lower(given: argparse.Namespace, **fields):
  """The step before compilation, and its abstract state."""
  import jax

  from step_jax import methods
  from step_jax.train import mesh as mesh_lib

  config = make_config(given, **fields)
  step = methods.abstract_step(config, config.data.crop)
  mesh = mesh_lib.make_mesh()
  shardings = mesh_lib.of_state(mesh, step.state, given.fsdp)
  lie = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  state = jax.tree.map(lie, step.state, shardings)
  batch = jax.tree.map(lambda x: lie(x, mesh_lib.split(mesh)), step.batch)
  frozen = jax.tree.map(lambda x: lie(x, mesh_lib.replicated(mesh)), step.frozen)
  return step.step.jitted_step(shardings).lower(state, batch, frozen), step.state


def main() -> None:
  """Compiles the step, and reads the program."""
  given = parse()
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={given.devices}'
  )
  import jax

  from step_jax.bench import case

  if not given.cpu:
    jax.lax.platform_dependent = lambda *args, default, **others: default(*args)
  lowered, state = lower(given)
  collectives = case.collective_bytes(lowered.compile().as_text())
  plain, _ = lower(given, **{'loss.r1': 0.0, 'loss.path': 0.0})
  flops = plain.cost_analysis()['flops'] / given.devices
  # A ring moves every byte twice for a sum, and once for a gathering or scattering.
  moved = sum(
    size * (2 if name == 'all-reduce' else 1) * (1 - 1 / given.devices)
    for name, size in collectives.items()
  )
  efficiency = {}
  for chip, (peak, link) in CHIPS.items():
    compute = flops / (REACHED * peak)
    efficiency[chip] = compute / (compute + moved / link)
  print(
    json.dumps(
      {
        'stage': given.stage,
        'devices': given.devices,
        'parameters': sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
        'collectives': collectives,
        'flops': flops,
        'efficiency': efficiency,
      }
    )
  )


if __name__ == '__main__':
  main()
