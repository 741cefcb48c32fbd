"""The scores that StEP alone has, and the groups that they are of."""

from step_jax.methods.step.scores import oracle, style

MEASURES = (
  (oracle.measure, frozenset({'reconstruction', 'style'})),
  (style.measure, frozenset({'style'})),
)
