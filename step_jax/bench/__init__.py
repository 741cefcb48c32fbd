"""Measurements of speed and memory, each against its peer in one run."""
