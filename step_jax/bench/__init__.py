"""Measurements of speed and memory, each against its peer in one run."""

from step_jax.bench.measure import run
from step_jax.bench.record import text, write
from step_jax.bench.settings import DTYPES, NAMES, PEERS, STAGES, Settings

__all__ = ['DTYPES', 'NAMES', 'PEERS', 'STAGES', 'Settings', 'run', 'text', 'write']
