"""Training steps of StEP as pure functions."""
