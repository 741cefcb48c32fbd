"""Weights of feature nets, Inception and LPIPS heads: find, get, convert, load.

Nothing here downloads unless `get` is called, and no file ever runs code.

    get('vgg16')                                   # Once, on a machine with a network, or
    convert('vgg16.npy')                           # from a file that is already here.
    features = load_features('vgg16', ['conv1_2', 'conv2_2'])
    activations = features.module.apply({'params': features.params}, images)
"""

from step_jax.weights.convert import convert, write
from step_jax.weights.download import get
from step_jax.weights.known import PUBLISHED
from step_jax.weights.load import (
  Features,
  Heads,
  load_features,
  load_heads,
  load_inception,
  tap_weights,
)
from step_jax.weights.store import find

__all__ = [
  'Features',
  'Heads',
  'PUBLISHED',
  'convert',
  'find',
  'get',
  'load_features',
  'load_heads',
  'load_inception',
  'tap_weights',
  'write',
]
