"""Scores of StEP."""
