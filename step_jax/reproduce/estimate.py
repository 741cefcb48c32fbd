"""Estimates the training time of a table."""

from collections.abc import Sequence
import math
import pathlib
import time

import jax
import jax.numpy as jnp

from step_jax import files, methods
from step_jax.config import ConfigDict
from step_jax.reproduce.jobs import Job
from step_jax.train import stage as stage_lib
from step_jax.train import writers

# Size of training images without a crop, whose real size is unknown before they are read.
_UNKNOWN_SIZE = (256, 256)
_PROBE_SIZE = 64
_PROBE_SECONDS = 2.0


def step_flops(config: ConfigDict) -> float:
  """Floating-point operations of a training step, as counted by the compiler.

  0 if the steps of the stage are not on images, because their time is negligible.
  """
  size = tuple(config.data.crop) if all(config.data.crop) else _UNKNOWN_SIZE
  abstract = methods.abstract_step(config, size)
  if abstract is None:
    return 0.0
  step = abstract.step.jitted_step()
  return step.lower(abstract.state, abstract.batch, abstract.frozen).cost_analysis()['flops']


def flops_per_second() -> float:
  """Measured rate of this machine on a typical workload: gradients of a convolution with norm."""

  def loss(kernel, x):
    y = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    mean, variance = y.mean(axis=(1, 2), keepdims=True), y.var(axis=(1, 2), keepdims=True)
    return jnp.sum(jnp.square(jax.nn.relu((y - mean) * jax.lax.rsqrt(variance + 1e-5))))

  shapes = (3, 3, 128, 128), (8, _PROBE_SIZE // 2, _PROBE_SIZE // 2, 128)
  args = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
  step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*args).compile()
  jax.block_until_ready(step(*args))
  count, started = 0, time.monotonic()
  while time.monotonic() - started < _PROBE_SECONDS:
    jax.block_until_ready(step(*args))
    count += 1
  flops = 3 * 2 * math.prod(shapes[0]) * math.prod(shapes[1][:3])
  return flops * count / (time.monotonic() - started)


def trained_seconds(folder: files.Path, config: ConfigDict) -> float:
  """Time of the steps of a stage so far, without compilation, evaluation and saving."""
  seconds, before = 0.0, 0
  for row in writers.read_metrics(folder):
    if 'images_per_second' in row:
      seconds += (row['step'] - before) * config.batch_size / row['images_per_second']
      before = row['step']
  return seconds


def seconds_left(jobs: Sequence[Job], workdir: files.Path) -> list[float]:
  """Estimated time to finish the training of each job; 0 if it is finished."""
  rate = flops_per_second()
  flops: dict[tuple, float] = {}
  estimates = []
  for job in jobs:
    rows = writers.read_metrics(workdir / job.folder)
    done = max((row['step'] for row in rows), default=0)
    # The cost does not depend on the seed.
    kind = (pathlib.PurePath(job.run).parent, job.config.stage)
    if kind not in flops:
      flops[kind] = step_flops(job.config)
    steps = stage_lib.num_steps(job.config) if flops[kind] else 0
    estimates.append(max(0, steps - done) * flops[kind] / rate)
  return estimates
