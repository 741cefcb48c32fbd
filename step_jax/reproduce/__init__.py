"""The paper's tables, each by one command."""

from step_jax.methods.step.reproduce.jobs import Settings, Source
from step_jax.methods.step.reproduce.tables import TABLES
from step_jax.reproduce.run import plan, reproduce

__all__ = ['TABLES', 'Settings', 'Source', 'plan', 'reproduce']
