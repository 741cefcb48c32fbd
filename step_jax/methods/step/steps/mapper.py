"""Stage 4: trains the mapper to generate style codes, by implicit maximum likelihood estimation.

StEP, sec. 3.4; Li and Malik (2018).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax.methods.step import networks
from step_jax.methods.step.search.nearest import nearest_samples
from step_jax.train import optimizers
from step_jax.train import state as state_lib


def standardization(
  config: ml_collections.ConfigDict, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Units in which the mapper is trained, as an offset and a scale.

  Args:
    config: configuration of the mapper stage. Configurations without `imle.standardize` are from a
      version that trained on unscaled codes.
    codes: all training codes `[N, Z]`, N at least 1.

  Returns:
    Mean and standard deviation of every dimension, float32 `[Z]` each; zeros and ones if codes are
    not standardised, as in the original.
  """
  if not config.imle.get('standardize', False):
    return np.zeros(codes.shape[1], np.float32), np.ones(codes.shape[1], np.float32)
  codes = np.asarray(codes, np.float64)
  return codes.mean(axis=0).astype(np.float32), codes.std(axis=0).astype(np.float32)


def in_training_units(codes: np.ndarray, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
  """Converts codes `[N, Z]` to training units; constant dimensions become 0."""
  return (codes - offset) / np.where(scale > 0, scale, 1)


def in_code_units(params: Mapping, offset: np.ndarray, scale: np.ndarray) -> dict:
  """Converts parameters so that the output of the mapper has the units of codes.

  The last layer is linear and absorbs the offset and scale, so that these parameters give codes
  also outside of this library.
  """
  out = params['out']
  return {**params, 'out': {'kernel': out['kernel'] * scale, 'bias': out['bias'] * scale + offset}}


def make(config: ml_collections.ConfigDict, num_codes: int) -> state_lib.TrainStep:
  """Creates the training step of stage 4; one step is one epoch over the codes.

  Batches are empty; `frozen['codes']` is `[N, Z]` in training units (`in_training_units`), in fixed
  order; the last incomplete mini-batch is dropped. Every `config.imle.staleness` epochs, each code
  is paired with the nearest of `sample_factor * N` new samples of the mapper. The loss is half the
  squared distance to it, summed over a mini-batch.
  """
  module = networks.mapper(config)
  imle, rates = config.imle, config.optimizer
  batch_size = min(config.batch_size, num_codes)
  used = num_codes // batch_size * batch_size
  adam = optimizers.scale_by_tf_adam(rates.b1, rates.b2)

  def rate(epoch):
    return rates.mapper_lr * imle.decay ** (epoch // imle.decay_epochs).astype(jnp.float32)

  optimizer = {'mapper': state_lib.Optimizer(('mapper',), adam, rate)}

  def init(key):
    params = {'mapper': module.init(key, jnp.zeros((1, config.model.z_dim)))['params']}
    latents = jnp.zeros((used, config.model.z_dim))
    return state_lib.create(params, optimizer, stats={'latents': latents})

  def pair(params, codes, key):
    """Latents `[N, Z]` whose samples are nearest to the codes, with added noise."""
    draw, perturb = jax.random.split(key)
    latents = jax.random.normal(draw, (imle.sample_factor * len(codes), codes.shape[1]))
    samples = module.apply({'params': params}, latents)
    chosen = latents[nearest_samples(codes, samples)]
    return chosen + imle.noise * jax.random.normal(perturb, chosen.shape)

  def train_step(state, batch, frozen):
    del batch
    codes, epoch = frozen['codes'][:used], state.step
    key = jax.random.fold_in(jax.random.key(config.seed), epoch)
    latents = jax.lax.cond(
      epoch % imle.staleness == 0,
      lambda: pair(state.params['mapper'], codes, key),
      lambda: state.stats['latents'],
    )

    def update(state, batch):
      code, latent = batch

      def objective(params):
        return imle_loss(module.apply({'params': params['mapper']}, latent), code)

      loss, grads = jax.value_and_grad(objective)(state.params)
      metrics = {'imle': loss / batch_size, **state_lib.gradient_norms({'mapper': grads})}
      return state_lib.update(state, 'mapper', optimizer['mapper'], grads), metrics

    batches = jax.tree.map(lambda x: x.reshape(-1, batch_size, x.shape[-1]), (codes, latents))
    state, metrics = jax.lax.scan(update, state, batches)
    metrics = jax.tree.map(jnp.mean, metrics)
    return state_lib.finish(state, stats={'latents': latents}), metrics

  return state_lib.TrainStep(init, train_step)


def imle_loss(samples: jax.Array, codes: jax.Array) -> jax.Array:
  """Half the squared distance of samples to their codes, `[B, Z]` each, summed: a scalar."""
  return 0.5 * jnp.sum(jnp.square(samples - codes))
