"""The stages of StEP: data, step, warm start and evaluation put together."""
