"""Checkpoints of the original TensorFlow implementation."""
