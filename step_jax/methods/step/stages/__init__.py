"""The stages of StEP: data, training step, warm start and evaluation."""
