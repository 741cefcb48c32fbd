"""Report of a run: one self-contained HTML page."""

from step_jax.report.page import write

__all__ = ['write']
