"""Converts variables of the original TensorFlow StEP to our parameters, by their names."""

from collections.abc import Mapping
import re

import numpy as np

from step_jax.errors import WeightsError

_LEAF = {'weight': 'kernel', 'kernel': 'kernel', 'bias': 'bias', 'gamma': 'gamma', 'beta': 'beta'}
_SUFFIX = re.compile(r'(/ExponentialMovingAverage)?(:0)?$')

# Scope of a TensorFlow variable -> path of our module, tried in order.
_RULES = [
  (re.compile(pattern, re.ASCII), path)
  for pattern, path in [
    (r'appearance_net/conv0', 'style_encoder/conv0'),
    (r'appearance_net/BB(\d)/bb_path1/bb_conv(\d)', r'style_encoder/block\1/conv\2'),
    (r'appearance_net/BB(\d)/bb_path2/path2_conv', r'style_encoder/block\1/shortcut'),
    (r'appearance_net/FC_(mean|logvar)/dense', r'style_encoder/\1'),
    (r'g_model_enc/conv0', 'generator/content_encoder/conv0'),
    (r'g_model_enc/instance_norm/InstanceNorm', 'generator/content_encoder/norm0'),
    (
      r'g_model_enc/downsampling/downsampling_block(\d)/conv\d',
      r'generator/content_encoder/down\1',
    ),
    (
      r'g_model_enc/downsampling/downsampling_block(\d)/instance_norm/InstanceNorm',
      r'generator/content_encoder/down_norm\1',
    ),
    (
      r'g_model_enc/res_blocks/resblock(\d)/res(\d)/res\d_conv',
      r'generator/content_encoder/res\1/conv\2',
    ),
    (
      r'g_model_enc/res_blocks/resblock(\d)/res(\d)/res\d_norm/InstanceNorm',
      r'generator/content_encoder/res\1/norm\2',
    ),
    (
      r'g_model_dec/res_blocks/resblock(\d)/res(\d)/res\d_conv',
      r'generator/decoder/res\1/conv\2',
    ),
    (
      r'g_model_dec/res_blocks/resblock(\d)/res(\d)/res\d_norm/InstanceNorm',
      r'generator/decoder/res\1/norm\2',
    ),
    (r'g_model_dec/upsampling/upscale_(\d)/conv(\d)', r'generator/decoder/up\1/conv\2'),
    (r'g_model_dec/upsampling/rgb', 'generator/decoder/rgb'),
    # The original counts the mini-batch statistic as block 3.
    (r'd_model_1/D_scale(\d)/block_4/conv4', r'discriminator/scale\1/conv3'),
    (r'd_model_1/D_scale(\d)/block_4/instance_norm/InstanceNorm', r'discriminator/scale\1/norm3'),
    (r'd_model_1/D_scale(\d)/block_(\d)/conv\d', r'discriminator/scale\1/conv\2'),
    (
      r'd_model_1/D_scale(\d)/block_(\d)/instance_norm/InstanceNorm',
      r'discriminator/scale\1/norm\2',
    ),
    (r'd_model_1/D_scale(\d)/patchGAN_logits/conv5', r'discriminator/scale\1/logits'),
    # The mapper has its own checkpoint, with Keras' default names of layers.
    (r'(?:imle/)?dense', 'mapper/dense0'),
    (r'(?:imle/)?dense_(\d)', r'mapper/dense\1'),
  ]
]


def step_tf_path(name: str) -> tuple[str, ...]:
  """Path of a variable of the original in our parameters: `('style_encoder', 'conv0', 'kernel')`.

  Args:
    name: TensorFlow name, with or without `/ExponentialMovingAverage` and `:0`.

  Raises:
    WeightsError: StEP's networks have no variable with that name.
  """
  scope, _, leaf = _SUFFIX.sub('', name).rpartition('/')
  second = scope.startswith('d_model_2/')
  for pattern, path in _RULES:
    match = pattern.fullmatch(scope.replace('d_model_2/', 'd_model_1/', 1))
    if match and leaf in _LEAF:
      tree, *rest = match.expand(path).split('/')
      return ('discriminator_2' if second else tree, *rest, _LEAF[leaf])
  raise WeightsError(
    f'variable {name!r} does not belong to StEP: expected a name in appearance_net, g_model_enc, '
    'g_model_dec, d_model_1 or d_model_2, or dense… of the mapper'
  )


def from_step_tf(variables: Mapping[str, np.ndarray]) -> dict[str, dict]:
  """Converts TensorFlow variables of the original to parameter trees of our modules.

  Args:
    variables: TensorFlow name -> array, from a checkpoint. If there are both a variable and its
      moving average, the moving average is used, as in evaluation.

  Returns:
    `{'style_encoder', 'generator', 'discriminator', 'mapper'}`, those that are given, and
    `'discriminator_2'` if the original trained a second one; float32 trees for
    `module.apply({'params': …})`.

  Raises:
    WeightsError: a name does not belong to StEP.
  """
  trees = {}
  # Averages are last, so they overwrite.
  for name in sorted(variables, key=lambda name: ('ExponentialMovingAverage' in name, name)):
    *scope, leaf = step_tf_path(name)
    node = trees
    for part in scope:
      node = node.setdefault(part, {})
    node[leaf] = np.asarray(variables[name], np.float32)
  if 'mapper' in trees:
    # The last layer has the next number in the original.
    trees['mapper']['out'] = trees['mapper'].pop(max(trees['mapper']))
  return trees
