"""Measurements of speed and memory, each against its peer in one run."""

from step_jax.bench.measure import run
from step_jax.bench.record import text, write
from step_jax.bench.settings import DTYPES, PEERS, Settings, benches

__all__ = ['DTYPES', 'PEERS', 'Settings', 'benches', 'run', 'text', 'write']
