"""Stage 4: the mapper learns to draw style codes, by implicit maximum likelihood (StEP, sec. 3.4.

Li and Malik 2018).
"""

import jax
import jax.numpy as jnp
import ml_collections

from step_jax.methods import networks, optimizers
from step_jax.methods import state as state_lib

# Samples compared with all codes at a time; bounds the memory of a refresh.
_SAMPLE_BLOCK = 1024


def nearest_samples(codes: jax.Array, samples: jax.Array) -> jax.Array:
  """Index of the nearest sample of every code: `[N, Z], [M, Z] -> int32 [N]`; ties to the first.

  Blocked products with a running minimum: memory does not grow with `N * M`.
  """
  count = samples.shape[0]
  padding = -count % _SAMPLE_BLOCK if count > _SAMPLE_BLOCK else 0
  block = min(count, _SAMPLE_BLOCK)
  blocks = jnp.pad(samples, ((0, padding), (0, 0))).reshape(-1, block, samples.shape[1])
  norms = jnp.pad(jnp.sum(samples**2, axis=1), (0, padding), constant_values=jnp.inf)

  def fold(best, entry):
    start, block_samples, block_norms = entry
    products = jnp.matmul(codes, block_samples.T, precision=jax.lax.Precision.HIGHEST)
    # |code|^2 is the same for all samples, so it does not matter for the minimum.
    distance = block_norms[None] - 2 * products
    index = jnp.argmin(distance, axis=1)
    value = jnp.take_along_axis(distance, index[:, None], axis=1)[:, 0]
    better = value < best[0]
    merged = jnp.where(better, value, best[0]), jnp.where(better, start + index, best[1])
    return merged, None

  start = (jnp.full(len(codes), jnp.inf), jnp.zeros(len(codes), jnp.int32))
  starts = jnp.arange(len(blocks), dtype=jnp.int32) * block
  (_, index), _ = jax.lax.scan(fold, start, (starts, blocks, norms.reshape(-1, block)))
  return index


def make(config: ml_collections.ConfigDict, num_codes: int) -> state_lib.Method:
  """The method of stage 4; one step is one epoch over the codes.

  Batches are empty; `frozen['codes']` is `[N, Z]`, in fixed order, of which the last incomplete
  mini-batch is left out. Every `config.imle.staleness` epochs each code is paired anew with the
  nearest of `sample_factor * N` samples of the mapper; the loss is half the squared distance to it,
  summed over a mini-batch.
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
    return state_lib.create(params, optimizer, latents=latents)

  def pair(params, codes, key):
    """Latents `[N, Z]` whose samples lie nearest to the codes, slightly perturbed."""
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
      lambda: state.latents,
    )

    def update(state, batch):
      code, latent = batch

      def objective(params):
        return imle_loss(module.apply({'params': params['mapper']}, latent), code)

      loss, grads = jax.value_and_grad(objective)(state.params)
      state = state_lib.apply_gradients(state, optimizer, {'mapper': grads})
      return state.replace(step=epoch), loss

    batches = jax.tree.map(lambda x: x.reshape(-1, batch_size, x.shape[-1]), (codes, latents))
    state, batch_losses = jax.lax.scan(update, state.replace(latents=latents), batches)
    return state.replace(step=epoch + 1), {'imle': jnp.mean(batch_losses) / batch_size}

  return state_lib.Method(init, train_step)


def imle_loss(samples: jax.Array, codes: jax.Array) -> jax.Array:
  """Half the squared distance of samples to their codes, `[B, Z]` each, summed over the batch.

  A scalar.
  """
  return 0.5 * jnp.sum(jnp.square(samples - codes))
