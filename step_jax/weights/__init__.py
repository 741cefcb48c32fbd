"""Weights of feature networks, Inception and LPIPS heads: find, get, convert, load.

Only `get` downloads files, and no code in a file is ever executed.

    get('vgg16')                                   # Once, with a network connection; or
    convert('vgg16.npy')                           # from a local file.
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
