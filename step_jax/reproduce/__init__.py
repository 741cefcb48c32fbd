"""Reproduces the papers' tables, each with one command."""

from step_jax.reproduce.jobs import Settings, Source
from step_jax.reproduce.run import plan, reproduce, tables

__all__ = ['Settings', 'Source', 'plan', 'reproduce', 'tables']
