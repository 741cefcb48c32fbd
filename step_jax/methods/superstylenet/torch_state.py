"""Converts PyTorch state dicts of the published networks to our names and layouts.

Each function returns `params` and the collections of statistics (`batch_stats`, `spectral`). Arrays
that the original never uses, or that have no effect, are dropped: the uncalled layer of GSAS, the
first weight and the bias of its convolution, the norms inside of SPADE, and the layers of labels
that the map does not have.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from step_jax.errors import WeightsError
from step_jax.methods.superstylenet.discriminator import NUM_SCALES
from step_jax.methods.superstylenet.generator import BLOCKS

Arrays = Mapping[str, np.ndarray]
Tree = dict[str, Any]


def generator(state: Arrays) -> tuple[Tree, Tree]:
  """Parameters and statistics of a generator.

  Raises:
    WeightsError: an array is missing.
  """
  params = {name: conv(state, f'{name}.') for name in ('fc', 'conv_img')}
  stats = {'batch_stats': {}, 'spectral': {}}
  for name, *_ in BLOCKS:
    prefix = name.replace('middle', 'G_middle') + '.'
    params[name], own = block(state, prefix)
    for collection, values in own.items():
      stats[collection][name] = values
  return params, stats


def discriminator(state: Arrays) -> tuple[Tree, Tree]:
  """Parameters and statistics of a two-scale discriminator.

  Raises:
    WeightsError: an array is missing.
  """
  params, spectral = {}, {}
  for i in range(NUM_SCALES):
    scale = f'discriminator_{i}.'
    params[f'scale_{i}'] = {
      **{f'conv_{j}': conv(state, f'{scale}model{j}.0.') for j in (0, 3)},
      **{f'conv_{j}': conv(state, f'{scale}model{j}.0.0.') for j in (1, 2)},
    }
    spectral[f'scale_{i}'] = {
      f'conv_{j}': {'norm': vectors(state, f'{scale}model{j}.0.0.')} for j in (1, 2)
    }
  return params, {'spectral': spectral}


def block(state: Arrays, prefix: str = '') -> tuple[Tree, Tree]:
  """Parameters and statistics of one residual block."""
  shortcut = f'{prefix}conv_s.weight_orig' in state
  names = ('0', '1') + (('s',) if shortcut else ())
  params = {f'conv_{name}': conv(state, f'{prefix}conv_{name}.') for name in names}
  params |= {f'ace_{name}': ace_params(state, f'{prefix}ace_{name}.') for name in names}
  spectral = {f'conv_{name}': {'norm': vectors(state, f'{prefix}conv_{name}.')} for name in names}
  norms = {f'ace_{name}': ace_stats(state, f'{prefix}ace_{name}.') for name in names}
  return params, {'batch_stats': norms, 'spectral': spectral}


def ace(state: Arrays, prefix: str = '') -> tuple[Tree, Tree]:
  """Parameters and statistics of one normalisation."""
  return ace_params(state, prefix), {'batch_stats': ace_stats(state, prefix)}


def ace_params(state: Arrays, prefix: str = '') -> Tree:
  """Parameters of one normalisation; the conversion is linear and also applies to gradients."""
  get = lambda name: _get(state, prefix + name)
  spade = conv(state, f'{prefix}Spade.mlp_shared.0.')
  both = lambda first, second: {
    leaf: np.concatenate([conv(state, prefix + name)[leaf] for name in (first, second)], axis=-1)
    for leaf in ('kernel', 'bias')
  }
  params = {
    'noise_scale': get('noise_var'),
    'spade_shared': spade,
    'spade': both('Spade.mlp_gamma.', 'Spade.mlp_beta.'),
  }
  if not has_style(state, prefix):
    return params
  labels = range(spade['kernel'].shape[2])
  style = both('conv_gamma.', 'conv_beta.')
  return params | {
    'label_kernel': np.stack([get(f'fc_mu{i}.weight').T for i in labels]),
    'label_bias': np.stack([get(f'fc_mu{i}.bias') for i in labels]),
    'gsas_weight': get('Gsas.coefficient.weight').reshape(-1)[1],
    'style_kernel': style['kernel'],
    'style_bias': style['bias'],
    'blend_scale': get('blending_gamma').reshape(()),
    'blend_shift': get('blending_beta').reshape(()),
  }


def has_style(state: Arrays, prefix: str = '') -> bool:
  """Whether a normalisation has a style branch."""
  return f'{prefix}conv_gamma.weight' in state


def ace_stats(state: Arrays, prefix: str = '') -> Tree:
  """Running statistics of one normalisation."""
  norm = f'{prefix}param_free_norm.running_'
  return {'norm': {leaf: _get(state, norm + leaf) for leaf in ('mean', 'var')}}


def conv(state: Arrays, prefix: str) -> Tree:
  """Kernel and bias (if any) of a convolution, OIHW to HWIO, before spectral norm."""
  name = f'{prefix}weight_orig' if f'{prefix}weight_orig' in state else f'{prefix}weight'
  params = {'kernel': _get(state, name).transpose(2, 3, 1, 0)}
  if f'{prefix}bias' in state:
    params['bias'] = _get(state, f'{prefix}bias')
  return params


def vectors(state: Arrays, prefix: str) -> Tree:
  """Vectors of spectral norm of a convolution; the longer one is reordered as our kernels."""
  kernel = _get(state, f'{prefix}weight_orig').transpose(2, 3, 1, 0)
  height, width, inputs, _ = kernel.shape
  v = _get(state, f'{prefix}weight_v').reshape(inputs, height, width).transpose(1, 2, 0)
  return {'u': _get(state, f'{prefix}weight_u'), 'v': v.reshape(-1)}


def _get(state: Arrays, name: str) -> np.ndarray:
  """An array by its name, float32."""
  if name not in state:
    raise WeightsError(f'the state dict lacks {name}; give a complete file of this network')
  return np.asarray(state[name], np.float32)
