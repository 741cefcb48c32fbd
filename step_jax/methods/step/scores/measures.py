"""Scores that only StEP has, and their groups."""

from step_jax.methods.step.scores import oracle, style

MEASURES = (
  (oracle.measure, frozenset({'reconstruction', 'style'})),
  (style.measure, frozenset({'style'})),
)
