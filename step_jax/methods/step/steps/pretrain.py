"""Stage 1: trains the style encoder on triplets of images that are near and far in style.

StEP, sec. 3.1.
"""

import jax
import jax.numpy as jnp
import ml_collections

from step_jax import images
from step_jax.methods.step import networks
from step_jax.methods.step.steps import terms
from step_jax.train import optimizers
from step_jax.train import state as state_lib


def encode_triplets(encoder, params, batch) -> list[jax.Array]:
  """Encodes `{'anchor', 'positive', 'negative'}`, uint8 `[B, H, W, 3]` each, in one pass.

  Returns three arrays of style codes `[B, Z]`.
  """
  # Interleaved, so that the images of a device stay on it.
  pictures = jnp.stack([batch[role] for role in ('anchor', 'positive', 'negative')], axis=1)
  z, _, _ = encoder.apply(
    {'params': params}, images.to_float(pictures.reshape(-1, *pictures.shape[2:]))
  )
  return [z.reshape(-1, 3, z.shape[-1])[:, i] for i in range(3)]


def make(config: ml_collections.ConfigDict) -> state_lib.TrainStep:
  """Creates the training step of stage 1. See `encode_triplets` for batches; nothing is frozen."""
  encoder = networks.style_encoder(config)
  weights = terms.weights(terms.PRETRAIN, config.loss)
  adam = optimizers.scale_by_tf_adam(config.optimizer.b1, config.optimizer.b2)
  rate = config.optimizer.encoder_lr
  optimizer = {
    'encoder': state_lib.Optimizer(('style_encoder',), adam, optimizers.schedule(config, rate))
  }

  def init(key: jax.Array) -> state_lib.TrainState:
    params = {'style_encoder': networks.init_style_encoder(encoder, key)}
    return state_lib.create(params, optimizer)

  def train_step(state, batch, frozen):
    del frozen

    def objective(params):
      codes = encode_triplets(encoder, params['style_encoder'], batch)
      values = terms.evaluate(terms.PRETRAIN, weights, codes, config.loss.margin)
      return networks.weighted_sum(weights, values), values

    gradients, values = jax.grad(objective, has_aux=True)(state.params)
    grads = {'encoder': gradients}
    metrics = {'loss': networks.weighted_sum(weights, values), **values}
    metrics |= state_lib.gradient_norms(grads)
    return state_lib.apply_gradients(state, optimizer, grads), metrics

  return state_lib.TrainStep(init, train_step)
