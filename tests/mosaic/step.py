"""The training step: generator, then discriminator on images of the updated generator."""

import jax
import jax.numpy as jnp
import optax

from mosaic import nets
from step_jax import images
from step_jax.train import optimizers
from step_jax.train import state as state_lib

STATS = ('batch_stats', 'spectral')
AVERAGED = state_lib.AVERAGED.format('generator')


def make(config) -> state_lib.TrainStep:
  """Batches are `target`, uint8 `[B, H, W, 3]`, and `labels`, integers `[B, H, W]`."""
  generator, discriminator = nets.of_config(config)
  adam = optax.chain(
    optimizers.scale_by_torch_adam(config.optimizer.b1, config.optimizer.b2),
    optax.add_decayed_weights(1e-4),
  )
  rate = lambda step: jnp.float32(config.optimizer.lr)
  movers = {
    name: state_lib.Optimizer((name,), adam, rate) for name in ('generator', 'discriminator')
  }

  def init(key):
    keys = jax.random.split(key)
    labels, image = jnp.zeros((1, 16, 16), jnp.int32), jnp.zeros((1, 16, 16, 3))
    code = nets.code_of(image, labels, config.model.num_labels)
    variables = {
      'generator': generator.init(keys[0], labels, code, image[..., :1]),
      'discriminator': discriminator.init(keys[1], image, labels),
    }
    stats = {
      name: {key: own[key] for key in STATS if key in own} for name, own in variables.items()
    }
    stats[AVERAGED] = jax.tree.map(jnp.copy, stats['generator'])
    stats['histogram'] = jnp.zeros((config.model.num_labels, nets.BINS**3))
    stats['lazy'] = {'r1': jnp.zeros(())}
    params = {name: own['params'] for name, own in variables.items()}
    return state_lib.create(params, movers, ('generator',), stats=stats)

  def train_step(state, batch, frozen):
    del frozen
    labels, target = batch['labels'].astype(jnp.int32), images.to_float(batch['target'])
    code = nets.code_of(target, labels, config.model.num_labels)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), state.step))

    def generate(params, stats, key):
      noise = jax.random.normal(key, (*labels.shape, 1))
      variables = {'params': params, **stats}
      return generator.apply(variables, labels, code, noise, True, mutable=STATS)

    def judge(params, stats, image):
      variables = {'params': params, **stats}
      return discriminator.apply(variables, image, labels, True, mutable=STATS)

    def of_generator(params):
      fake, moved = generate(params, stats['generator'], keys[0])
      logits, judged = judge(state.params['discriminator'], stats['discriminator'], fake)
      l1 = jnp.mean(jnp.abs(fake - target))
      found = {'l1': l1, 'loss_generator': config.loss.l1 * l1 - jnp.mean(logits)}
      return found['loss_generator'], (moved, judged, found)

    def of_discriminator(params):
      real, judged = judge(params, stats['discriminator'], target)
      logits, judged = judge(params, judged, fake)
      loss = jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + logits))
      return loss, judged

    def penalty(params):
      logits = lambda image: jnp.sum(judge(params, stats['discriminator'], image)[0])
      return jnp.mean(jnp.sum(jnp.square(jax.grad(logits)(target)), axis=(1, 2, 3)))

    def regularise(state):
      r1, grads = jax.value_and_grad(penalty)(state.params['discriminator'])
      weight = config.loss.r1 * config.loss.r1_every
      grads = {'discriminator': jax.tree.map(lambda g: weight * g, grads)}
      return state_lib.update(state, 'discriminator', movers['discriminator'], grads), r1

    stats = dict(state.stats)
    grads, (moved, judged, metrics) = jax.grad(of_generator, has_aux=True)(
      state.params['generator']
    )
    state = state_lib.update(state, 'generator', movers['generator'], {'generator': grads})
    stats |= {'generator': moved, 'discriminator': judged}
    fake, stats['generator'] = generate(state.params['generator'], moved, keys[1])
    grads, stats['discriminator'] = jax.grad(of_discriminator, has_aux=True)(
      state.params['discriminator']
    )
    state = state_lib.update(
      state, 'discriminator', movers['discriminator'], {'discriminator': grads}
    )
    due = state.step % config.loss.r1_every == 0
    # The log has a value for every step: where none is computed, the previous one.
    last = state.stats['lazy']['r1']
    state, r1 = jax.lax.cond(due, regularise, lambda state: (state, last), state)
    decay = optimizers.ema_decay(state.step, config.ema_decay)
    stats[AVERAGED] = optimizers.ema_update(stats[AVERAGED], stats['generator'], decay)
    stats['histogram'] += nets.histogram(code)
    stats['lazy'] = {'r1': r1}
    return state_lib.finish(state, decay, stats), {**metrics, 'r1': r1}

  return state_lib.TrainStep(init, train_step)
