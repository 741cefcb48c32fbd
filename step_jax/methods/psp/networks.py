"""Creates modules and loads frozen networks of pSp from a configuration."""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import models, weights
from step_jax.evaluate import lpips as lpips_lib
from step_jax.methods.psp import encoders, irse, published, resnet
from step_jax.methods.psp import generator as generator_lib
from step_jax.methods.psp.discriminator import Discriminator
from step_jax.methods.psp.generator import Generator
from step_jax.weights import nets

# Feature network -> its name in LPIPS.
_LPIPS = {'alexnet': 'alex', 'vgg16': 'vgg', 'squeezenet1_1': 'squeeze'}


def size(config: ml_collections.ConfigDict) -> int:
  """Side of the generated images, px."""
  return config.model.size or config.data.crop[0]


def input_channels(config: ml_collections.ConfigDict) -> int:
  """Number of input channels of the encoder."""
  return {'segmentation': config.data.classes, 'sketch': 1}.get(config.task, 3)


def generator(config: ml_collections.ConfigDict) -> Generator:
  """The generator of `config.model`."""
  return Generator(_channels(config), config.model.style_dim, config.model.mapping_depth)


def discriminator(config: ml_collections.ConfigDict) -> Discriminator:
  """The discriminator of `config.model`."""
  return Discriminator(_channels(config))


def _channels(config):
  model = config.model
  return generator_lib.channel_table(size(config), model.channel_multiplier, model.max_channels)


def encoder(config: ml_collections.ConfigDict) -> nn.Module:
  """The encoder of `config.model`."""
  model = config.model
  count = generator(config).num_styles
  if model.encoder == 'resnet50_linear':
    return encoders.ResNetLinearEncoder(
      model.num_styles or count, model.encoder_size, model.style_dim
    )
  widths = tuple(model.body_width * 2**i for i in range(4))
  body = model.encoder_size, tuple(model.body_depths), widths, model.style_dim
  if model.encoder == 'into_w':
    return encoders.IntoWEncoder(*body)
  kind = {'pyramid': encoders.GradualStyleEncoder, 'into_w_plus': encoders.IntoWPlusEncoder}
  return kind[model.encoder](count, *body)


def generator_shapes(config: ml_collections.ConfigDict) -> Mapping[str, Any]:
  """Shapes of the generator's variables: `params` and `noise`."""
  module = generator(config)
  return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, module.style_dim)))


class Trunk(NamedTuple):
  """The feature network of LPIPS with its parameters and heads, and its label in logs."""

  module: models.FeatureNet
  params: Mapping[str, Any]
  heads: Mapping[str, Any]
  label: str


def lpips_module(config: ml_collections.ConfigDict) -> models.FeatureNet:
  """The feature network of LPIPS, without parameters.

  Raises:
    ConfigError: LPIPS has no heads for this network.
  """
  net = config.features.net
  config_lib.demand(net in _LPIPS, 'features.net', net, f'LPIPS has heads for {", ".join(_LPIPS)}')
  _, channels = nets.HEADS[f'lpips_{_LPIPS[net]}']
  return models.FEATURE_NETS[net](taps=tuple(channels))


def lpips(config: ml_collections.ConfigDict) -> Trunk:
  """LPIPS on `config.features`; with `features.weights=random` all channels have equal weights.

  Raises:
    UserError: LPIPS has no heads for this network, or weights are missing.
  """
  module = lpips_module(config)
  short = _LPIPS[config.features.net]
  if config.features.weights:
    loaded = weights.load_features(config.features.net, module.taps, config.features.weights)
    if config.features.weights == 'random':
      _, channels = nets.HEADS[f'lpips_{short}']
      heads = {tap: np.full(count, 1 / count, np.float32) for tap, count in channels.items()}
    else:
      heads = weights.load_heads(f'lpips_{short}').weights
    return Trunk(module, loaded.params, heads, loaded.label)
  loaded = lpips_lib.load(short)
  return Trunk(module, loaded.params['trunk'], loaded.params['heads'], loaded.name)


def similarity(config: ml_collections.ConfigDict, term: str) -> tuple[nn.Module, Mapping]:
  """The network of `loss.identity` or `loss.moco`, and its variables.

  Raises:
    UserError: its file is missing or cannot be read.
  """
  read = {
    'identity': published.read_face_embedding,
    'moco': published.read_resnet50,
  }[term]
  return read(published.find(term, config.features[term]))


def lpips_shapes(config: ml_collections.ConfigDict) -> Trunk:
  """`lpips` with shapes instead of parameters."""
  module = lpips_module(config)
  picture = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), picture)['params']
  _, channels = nets.HEADS[f'lpips_{_LPIPS[config.features.net]}']
  heads = {tap: jax.ShapeDtypeStruct((count,), jnp.float32) for tap, count in channels.items()}
  return Trunk(module, params, heads, 'shapes')


def similarity_shapes(config: ml_collections.ConfigDict, term: str) -> tuple[nn.Module, Mapping]:
  """`similarity` with shapes of the published networks instead of parameters."""
  del config
  if term == 'identity':
    module, side, init = irse.FaceEmbedding(), irse.FACE_SIZE, irse.FaceEmbedding().init
  else:
    module, side = resnet.ResNet50(), 64
    init = functools.partial(module.init, train=False)
  picture = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  return module, jax.eval_shape(init, jax.random.key(0), picture)
