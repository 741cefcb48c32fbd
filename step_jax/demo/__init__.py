"""A local page to try a trained run on: `step-jax demo`."""

from step_jax.demo.server import HOST, PORT, RUN, serve

__all__ = ['HOST', 'PORT', 'RUN', 'serve']
