"""The stages, put together from data, method, frozen networks and evaluation, and their run."""

from step_jax.stages.run import train
from step_jax.stages.stage import Stage

__all__ = ['Stage', 'train']
