"""A trained run: translation of label maps in given or sampled colours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mosaic import HUES, nets
from mosaic import step as step_lib
from step_jax import config as config_lib
from step_jax import images, methods
from step_jax.data.labels import Labels
from step_jax.infer import gallery
from step_jax.train import stage as stage_lib


def variables_of(params, stats):
  """Variables for `generate`: averaged generator with its statistics, and the histogram."""
  generator = {'params': params['generator'], **stats[step_lib.AVERAGED]}
  return {'generator': generator, 'histogram': stats['histogram']}


def encode(config, target, labels):
  return nets.code_of(images.to_float(target), labels, config.model.num_labels)


def generate(config, variables, labels, code):
  generator, _ = nets.of_config(config)
  noise = jnp.zeros((*labels.shape, 1))
  return images.to_uint8(generator.apply(variables['generator'], labels, code, noise))


class MosaicRun:
  """Sources are label maps, `[H, W]` or `[N, H, W]`; codes are `nets.Code`."""

  method = 'mosaic'
  note = ''
  code_digest = 'mean colours'

  def __init__(self, config, step, params):
    self.config, self.step, self.params = config, step, params
    self.code_shape = (config.model.num_labels, 3)
    self._encode = jax.jit(functools.partial(encode, config))
    self._generate = jax.jit(functools.partial(generate, config))

  def encode(self, images, labels):
    if images.ndim == 3:
      return jax.tree.map(lambda x: x[0], self.encode(images[None], labels[None]))
    return jax.device_get(self._encode(images, labels))

  def translate(self, sources, code):
    if sources.ndim == 2:
      return self.translate(sources[None], code)[0]
    if code.valid.ndim == 1:
      spread = lambda x: np.broadcast_to(x, (len(sources), *x.shape))
      code = jax.tree.map(spread, code)
    return np.asarray(self._generate(self.params, sources, code))

  def draw(self, count, seed=0, hue='any'):
    """Samples colours with the frequencies of the histogram, of one channel or all."""
    rng = np.random.default_rng(seed)
    histogram = np.asarray(self.params['histogram'], np.float64)
    bins = [rng.choice(histogram.shape[1], count, p=row / row.sum()) for row in histogram]
    index = np.stack(bins, axis=1)
    digits = [index // nets.BINS**2, index // nets.BINS % nets.BINS, index % nets.BINS]
    colours = (np.stack(digits, axis=-1) + 0.5) / nets.BINS * 2 - 1
    if hue != 'any':
      others = [i for i, name in enumerate(HUES[1:]) if name != hue]
      colours[..., others] = -1
    return nets.Code(colours.astype(np.float32), np.ones(index.shape, np.float32))

  def sample(self, sources, count, seed=0, **options):
    codes = self.draw(count, seed, **options)
    pick = lambda i: jax.tree.map(lambda x: x[i], codes)
    return np.stack([self.translate(sources, pick(i)) for i in range(count)])

  def pack(self, code):
    return np.where(code.valid[..., None] > 0, code.colours, np.nan)

  def unpack(self, array):
    if array.shape != self.code_shape:
      raise ValueError(f'{list(array.shape)}, where {list(self.code_shape)} is needed')
    valid = ~np.isnan(array).any(axis=-1)
    return nets.Code(
      np.where(valid[:, None], array, 0).astype(np.float32), valid.astype(np.float32)
    )


def load(folder, which='latest'):
  config = config_lib.read(folder)
  shapes = methods.abstract_step(config, config.data.crop).state
  like = {'ema': shapes.ema, 'stats': shapes.stats}
  step, state, _ = stage_lib.load_run(folder, like, which)
  return MosaicRun(config, step, variables_of(state['ema'], state['stats']))


def read_source(run, path, half, resize):
  """An input of `step-jax translate`: a label map, and an image of it."""
  assert not half
  del resize
  labels = Labels.of(run.config.data).read(path)
  return labels, gallery.shown(labels)


def read_labels(run, path, image):
  """The label map of a style image."""
  del image
  return Labels.of(run.config.data).read(path)
