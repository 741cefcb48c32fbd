"""A trained run: translation of label maps in given or drawn colours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mosaic import nets
from mosaic import step as step_lib
from step_jax import config as config_lib
from step_jax import images, methods
from step_jax.train import stage as stage_lib


def variables_of(params, stats):
  """What `generate` takes: the averaged generator with its own statistics, and the histogram."""
  generator = {'params': params['generator'], **stats[step_lib.AVERAGED]}
  return {'generator': generator, 'histogram': stats['histogram']}


def encode(config, variables, target, labels):
  return nets.code_of(images.to_float(target), labels, config.model.num_labels)


def generate(config, variables, labels, code):
  generator, _ = nets.of_config(config)
  noise = jnp.zeros((*labels.shape, 1))
  return images.to_uint8(generator.apply(variables['generator'], labels, code, noise))


class MosaicRun:
  method = 'mosaic'
  note = ''

  def __init__(self, config, step, params):
    self.config, self.step, self.params = config, step, params
    self._encode = jax.jit(functools.partial(encode, config))
    self._generate = jax.jit(functools.partial(generate, config))

  def encode(self, images, labels=None):
    return jax.device_get(self._encode(self.params, images, labels))

  def translate(self, sources, code=None):
    code = jax.tree.map(np.asarray, code)
    if code['valid'].ndim == 1:
      code = jax.tree.map(lambda x: np.broadcast_to(x, (len(sources), *x.shape)), code)
    return np.asarray(self._generate(self.params, sources, code))

  def draw(self, count, seed=0):
    """Colours as often as the histogram says that they are."""
    rng = np.random.default_rng(seed)
    histogram = np.asarray(self.params['histogram'], np.float64)
    bins = [rng.choice(histogram.shape[1], count, p=row / row.sum()) for row in histogram]
    index = np.stack(bins, axis=1)
    digits = [index // nets.BINS**2, index // nets.BINS % nets.BINS, index % nets.BINS]
    colours = (np.stack(digits, axis=-1) + 0.5) / nets.BINS * 2 - 1
    return {
      'colours': colours.astype(np.float32), 'valid': np.ones(index.shape, np.float32)
    }  # fmt: skip

  def sample(self, sources, count, seed=0):
    codes = self.draw(count, seed)
    pick = lambda i: jax.tree.map(lambda x: x[i], codes)
    return np.stack([self.translate(sources, pick(i)) for i in range(count)])


def load(folder, which='latest'):
  config = config_lib.read(folder)
  shapes = methods.abstract_step(config, config.data.crop).state
  like = {'ema': shapes.ema, 'stats': shapes.stats}
  step, state, _ = stage_lib.load_run(folder, like, which)
  return MosaicRun(config, step, variables_of(state['ema'], state['stats']))
