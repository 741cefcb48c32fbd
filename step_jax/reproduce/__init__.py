"""The paper's tables, each by one command."""

from step_jax.reproduce.jobs import Settings, Source
from step_jax.reproduce.run import plan, reproduce
from step_jax.reproduce.tables import TABLES

__all__ = ['TABLES', 'Settings', 'Source', 'plan', 'reproduce']
