"""Exports a trained run as files that work without this package."""

from step_jax.export.artefact import FORMAT, write
from step_jax.export.programs import PLATFORMS, Bundle, Program

__all__ = ['FORMAT', 'PLATFORMS', 'Program', 'Bundle', 'write']
