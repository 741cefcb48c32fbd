"""Trained runs in use: pictures in, pictures out."""

from step_jax.infer.translator import SAMPLERS, TRANSLATING, Translator, find_stage, load

__all__ = ['SAMPLERS', 'TRANSLATING', 'Translator', 'find_stage', 'load']
