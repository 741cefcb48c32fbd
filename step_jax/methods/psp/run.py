"""A trained run: encode, translate, mix, sample and generate numpy images."""

from collections.abc import Mapping
import functools
import hashlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import files, methods
from step_jax.errors import RunError
from step_jax.methods.psp import METHOD, functions, inputs, networks, styles, train_psp
from step_jax.train import stage as stage_lib

_BATCH = 8


class PspRun:
  """The networks of a trained run.

  Images are uint8 `[H, W, 3]` or `[N, H, W, 3]`, RGB, of any size; label maps integers `[H, W]` or
  `[N, H, W]`. Results have the size of the generator and the same leading axes. A code is one style
  for each of the n layers, float32 `[n, D]` or `[N, n, D]`.

  Attributes:
    config: configuration of the stage that trained it.
    step: step of its checkpoint.
    params: variables of the networks, see `functions`; a run of only StyleGAN2 has no `encoder`.
  """

  method = 'psp'
  note = ''

  def __init__(self, config: ml_collections.ConfigDict, step: int, params: Mapping[str, Any]):
    """See the attributes."""
    self.config = config
    self.step = step
    self.params = params
    generator = networks.generator(config)
    self.num_styles = generator.num_styles
    self._draw = jax.jit(functools.partial(functions.draw, generator))
    self._random = jax.jit(functools.partial(functions.random_styles, generator))
    if 'encoder' in params:
      encode = functools.partial(encode_sources, config, networks.encoder(config), generator)
      self._encode = jax.jit(encode)

  @property
  def code_shape(self) -> tuple[int, int]:
    """Shape of a code."""
    return self.num_styles, self.config.model.style_dim

  @functools.cached_property
  def code_digest(self) -> str:
    """Digest of the generator: all encoders for one generator have interchangeable codes."""
    sha256 = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(self.params['generator']['params']):
      sha256.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return sha256.hexdigest()

  def encode(self, images: np.ndarray, run: str = '') -> np.ndarray:
    """Codes of images, or of label maps if the encoder reads label maps.

    Args:
      images: see above.
      run: folder of another run with the same generator, whose encoder is used.

    Raises:
      RunError: this run has only StyleGAN2, or that run has another generator.
    """
    if run:
      return self._other(run).encode(images)
    if 'encoder' not in self.params:
      raise RunError('this run has no encoder and only generates images: run step-jax train psp')
    # An image is refused below if label maps are expected, and not read as maps of 3 px width.
    single = images.ndim == 2 or (
      images.ndim == 3 and (self.config.task != 'segmentation' or images.shape[-1] == 3)
    )
    batch = images[None] if single else images
    sources = np.stack([inputs.prepare(self.config, source) for source in batch])
    codes = _in_batches(self._encode, self.params, sources)
    return codes[0] if single else codes

  @functools.lru_cache(maxsize=1)  # noqa: B019
  def _other(self, folder: str) -> 'PspRun':
    other = methods.load(folder)
    if other.method != self.method or other.code_digest != self.code_digest:
      raise RunError(
        f'{folder}: has another generator, so its styles cannot be used: give a run with the same '
        'generator'
      )
    return other

  def translate(
    self,
    sources: np.ndarray,
    code: np.ndarray | None = None,
    layers: str = '',
    alpha: float = 1.0,
    masked: str = 'mean',
  ) -> np.ndarray:
    """Generates images from the codes of sources.

    Args:
      sources: see above.
      code: replaces the styles of `layers`, `[N, n, D]`, or `[n, D]` for all.
      layers: such as `8-`, see `styles.parse_layers`. The default with a code is the layers from
        `styles.first_fine` on, which do not change the layout.
      alpha: weight of `code`.
      masked: style of `layers` without a code: `mean`, or `zero` as in the reference of pSp.

    Returns:
      uint8 `[size, size, 3]` or `[N, size, size, 3]`.
    """
    own = self.encode(sources)
    return self.generate(self.mix_codes(own, code, layers, alpha, masked))

  def mix_codes(
    self,
    own: np.ndarray,
    other: np.ndarray | None,
    layers: str = '',
    alpha: float = 1.0,
    masked: str = 'mean',
  ) -> np.ndarray:
    """Replaces the styles of some layers; see `translate` for the arguments."""
    if other is None and not layers:
      return own
    chosen = styles.parse_layers(layers or f'{styles.first_fine(self.num_styles)}-', own.shape[-2])
    if other is None:
      mean = np.asarray(self.params['mean_style'], np.float32)
      other = np.zeros_like(mean) if masked == 'zero' else mean
    batch = own if own.ndim == 3 else own[None]
    mixed = np.asarray(styles.inject(batch, np.asarray(other, np.float32), chosen, alpha))
    return mixed if own.ndim == 3 else mixed[0]

  def mix(
    self,
    image: np.ndarray,
    reference: int | np.ndarray,
    layers: str = '',
    alpha: float = 1.0,
    truncation: float = 1.0,
  ) -> np.ndarray:
    """Translates an image with the styles of `layers` from a reference.

    Args:
      image: uint8 `[H, W, 3]`, or `[N, H, W, 3]`.
      reference: seed of a sampled style; an image, uint8; or a code, float32 `[n, D]`.
      layers, alpha: see `translate`.
      truncation: truncation of a sampled style.
    """
    if isinstance(reference, int):
      code = self.draw(1, reference, truncation)[0]
    else:
      code = self.encode(reference) if reference.dtype == np.uint8 else reference
    return self.translate(image, code, layers=layers, alpha=alpha)

  def generate(self, codes: np.ndarray | int, truncation: float = 1.0) -> np.ndarray:
    """Generates images from codes, `[N, n, D] -> uint8 [N, size, size, 3]`, or from a seed.

    Args:
      codes: float32 `[N, n, D]` or `[n, D]`; or the seed of a sampled style.
      truncation: truncation of a sampled style.
    """
    if isinstance(codes, int):
      codes = self.draw(1, codes, truncation)[0]
    codes = np.asarray(codes, np.float32)
    if codes.ndim == 2:
      return self.generate(codes[None])[0]
    return _in_batches(self._draw, self.params, codes)

  def draw(self, count: int, seed: int = 0, truncation: float = 1.0) -> np.ndarray:
    """Samples codes `[count, n, D]` with the same style for all layers.

    Args:
      count: number of codes.
      seed: the same seed gives the same codes.
      truncation: 1: no truncation; smaller values give styles nearer to the mean, with better
        images and less variety.
    """
    # Each code depends only on the seed and its index, so a larger count begins with the same
    # codes.
    dim = self.config.model.style_dim
    z = [np.random.default_rng([seed, i]).standard_normal(dim) for i in range(count)]
    random = lambda params, z: self._random(params, z, jnp.float32(truncation))
    return _in_batches(random, self.params, np.stack(z).astype(np.float32))

  def sample(
    self,
    sources: np.ndarray,
    count: int,
    seed: int = 0,
    truncation: float = 1.0,
    **options: Any,
  ) -> np.ndarray:
    """Translates sources into `count` sampled styles, the same for all sources: `[count, …]`.

    A run of only StyleGAN2 generates images and ignores the sources.
    """
    codes = self.draw(count, seed, truncation)
    if 'encoder' not in self.params:
      return self.generate(codes)
    return np.stack([self.translate(sources, code, **options) for code in codes])

  def interpolate(
    self, sources: np.ndarray, a: np.ndarray, b: np.ndarray, steps: int = 8, **options: Any
  ) -> np.ndarray:
    """Translates sources with styles on the line in W+ from image `a` to `b`, inclusive.

    Returns:
      uint8 `[steps, …]`; with `layers='0-'`, these are images between `a` and `b`.
    """
    start, end = self.encode(a), self.encode(b)
    line = functions.interpolate(start, end, steps)
    return np.stack([self.translate(sources, np.asarray(code), **options) for code in line])


def encode_sources(
  config: ml_collections.ConfigDict,
  encoder: nn.Module,
  generator: nn.Module,
  variables: Mapping,
  sources: jax.Array,
) -> jax.Array:
  """Codes `[B, n, D]` of sources from `inputs.prepare`."""
  images = train_psp.to_input(sources, config.task, networks.input_channels(config))
  return functions.encode(encoder, generator, variables, images, config.start_from_mean)


def _in_batches(function, variables, array: np.ndarray) -> np.ndarray:
  """Applies a compiled function in batches of one size, so that it compiles once."""
  size = min(_BATCH, len(array))
  results = []
  for start in range(0, len(array), size):
    part = array[start : start + size]
    filled = np.resize(part, (size, *part.shape[1:]))
    results.append(np.asarray(function(variables, filled))[: len(part)])
  return np.concatenate(results)


def load(folder: files.Path, which: str = 'latest') -> PspRun:
  """Opens the folder of a trained stage.

  Args:
    folder: folder of `psp`, or of `stylegan2` for a run that only generates images.
    which: `latest` or `best` checkpoint.

  Raises:
    RunError: the stage has another method, or its checkpoint cannot be read.
  """
  config = stage_lib.trained_config(folder, [stage.name for stage in METHOD.stages])
  step, restored, _ = stage_lib.load_run(folder, state_shapes(config), which)
  return PspRun(config, step, functions.variables(restored))


def state_shapes(config: ml_collections.ConfigDict) -> dict:
  """Shapes of the parts of a `TrainState` that `functions.variables` uses."""
  shapes = networks.generator_shapes(config)
  mean = jax.ShapeDtypeStruct((config.model.style_dim,), jnp.float32)
  if config.stage == 'stylegan2':
    return {
      'ema': {'generator': shapes['params']},
      'stats': {'noise': shapes['noise'], 'w_mean': mean},
    }
  side, channels = config.model.encoder_size, networks.input_channels(config)
  image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  init = functools.partial(networks.encoder(config).init, train=False)
  encoder = jax.eval_shape(init, jax.random.key(0), image)
  return {
    'params': {'encoder': encoder['params'], 'generator': shapes['params']},
    'stats': {'encoder': encoder['batch_stats'], 'noise': shapes['noise'], 'mean_style': mean},
  }
