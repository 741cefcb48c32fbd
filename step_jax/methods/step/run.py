"""A trained run: encode, translate, sample and interpolate numpy images."""

from collections.abc import Mapping
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import data, files
from step_jax.data import pipeline
from step_jax.errors import RunError
from step_jax.evaluate import scores
from step_jax.methods.step import METHOD, fitted, functions, networks, samplers, tiles
from step_jax.train import checkpoint
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

SAMPLERS = ('mapper', 'gaussian')
_BATCH = 8


class Translator:
  """The networks of a trained run.

  Pictures are uint8 `[H, W, 3]` or `[N, H, W, 3]`, RGB, of any size; results have the same leading
  axes. Style codes are float32 `[Z]` or `[N, Z]`.

  Attributes:
    folder: folder of the stage that trained the generator, if opened from one.
    config: configuration of that stage.
    step: step of its checkpoint.
    params: network -> averaged parameters (`style_encoder`, `generator`).
    codes: style codes `[N, Z]` of the training images; None if they are not stored.
    samplers: name -> stored sampler: both of them, or none.
    sampler_name: name of the default sampler.
    note: one line for users if the default is not a mapper fitted to this encoder; else empty.
    fitted_to: encoder recorded by the mapper, if `samplers` are stored.
  """

  method = 'step'
  folder: files.Path

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    step: int,
    params: dict,
    codes: np.ndarray | None = None,
    mapper: samplers.Sampler | None = None,
    sampler_name: str = '',
    note: str = '',
    fitted_to: fitted.Encoder | None = None,
  ):
    """See the attributes; the default sampler is the mapper if there is one."""
    self.config = config
    self.step = step
    self.params = params
    self.codes = codes
    self.samplers: Mapping[str, samplers.Sampler] = {}
    if codes is not None:
      own = {'mapper': mapper} if mapper else {}
      self.samplers = {**own, 'gaussian': samplers.gaussian(codes)}
    self.sampler_name = sampler_name or ('mapper' if 'mapper' in self.samplers else 'gaussian')
    self.note = note
    self.fitted_to = fitted_to
    encoder, self._generator = networks.style_encoder(config), networks.generator(config)
    self._encode = jax.jit(functools.partial(functions.encode, encoder))
    self._generate = jax.jit(functools.partial(functions.generate, self._generator))

  @property
  def code_shape(self) -> tuple[int]:
    """Shape of a style code."""
    return (self.config.model.z_dim,)

  @functools.cached_property
  def code_digest(self) -> str:
    """Digest of the style encoder."""
    return fitted.digest(self.params['style_encoder'])

  def encode(self, pictures: np.ndarray) -> np.ndarray:
    """Style codes of images: `[N, H, W, 3] -> [N, Z]`, or `[H, W, 3] -> [Z]`."""
    return self._map(self._encode, pictures)

  def translate(
    self,
    sources: np.ndarray,
    code: np.ndarray | None = None,
    style: np.ndarray | None = None,
    tile: int = 0,
  ) -> np.ndarray:
    """Translates sources.

    Args:
      sources: `[N, H, W, 3]` or `[H, W, 3]`.
      code: style codes, `[N, Z]`, or `[Z]` for all.
      style: style images instead of `code`: `[N, H, W, 3]`, or `[H, W, 3]` for all; any size.
      tile: side of the tiles in pixels, for images that do not fit into memory; the result is the
        same within rounding, see `tiles.translate`. 0 translates whole images.

    Returns:
      uint8 of the shape of `sources`.

    Raises:
      ValueError: not exactly one of `code` and `style` is given, or their numbers do not fit.
    """
    if (code is None) == (style is None):
      raise ValueError('translate needs either style codes (code) or style pictures (style)')
    z = self.encode(style) if code is None else np.asarray(code, np.float32)
    each = z if sources.ndim == 3 else np.broadcast_to(z, (len(sources), z.shape[-1]))
    if not tile:
      return self._map(self._generate, sources, each)
    _check(sources)
    if sources.ndim == 3:
      return tiles.translate(self._generator, self.params, sources, z, tile)
    return np.stack([self.translate(*one, tile=tile) for one in zip(sources, each, strict=True)])

  def draw(self, count: int, seed: int = 0, sampler: str = '') -> np.ndarray:
    """Samples style codes `[count, Z]`.

    Args:
      count: number of codes.
      seed: the same seed gives the same codes.
      sampler: `mapper`, or `gaussian` with the mean and covariance of the training codes; empty:
        the one with better codes, see `sampler_name`.

    Raises:
      UserError: the run has no styles or no such sampler; or the training codes are not stored, and
        the training images cannot be read.
    """
    return self.sampler(sampler).draw(count, seed)

  def sampler(self, name: str = '') -> samplers.Sampler:
    """The sampler for `draw`; logs `note` if the default is used."""
    if not self.config.model.z_dim:
      raise RunError(
        'this run has no styles to draw (model.z_dim is 0), and one translation of each input: '
        'give any image as its style'
      )
    if self.note and not name:
      log.warning('%s', self.note)
    name = name or self.sampler_name
    if name == 'gaussian':
      return self.samplers.get(name) or self._own_gaussian
    if name not in self.samplers:
      why = f': {self.note}' if name == 'mapper' and self.note else ''
      raise RunError(
        f'this run cannot draw styles by {name!r}{why} (samplers are {", ".join(SAMPLERS)})'
      )
    return self.samplers[name]

  @functools.cached_property
  def _own_gaussian(self) -> samplers.Sampler:
    """Gaussian of the training codes, which are computed if they are not stored."""
    return samplers.gaussian(self._encode_training() if self.codes is None else self.codes)

  def _encode_training(self) -> np.ndarray:
    """Style codes `[N, Z]` of the training images."""
    settings = self.config.data
    pairs = data.open_config(settings)
    train = pairs.split('train')
    log.info('encoding %d training images, to draw styles like theirs', len(train))
    _, target = data.sides(pairs, settings.direction)
    examples = pipeline.eval_examples(train, {'target': target}, settings.eval_crop)
    return scores.collect(
      lambda batch: {'z': self._encode(self.params, batch['target'])},
      pipeline.eval_batches(examples, _BATCH),
    )['z']

  def sample(self, sources: np.ndarray, count: int, seed: int = 0, sampler: str = '') -> np.ndarray:
    """Translates sources into `count` sampled styles, the same for all sources.

    Returns:
      uint8 `[count, N, H, W, 3]`, or `[count, H, W, 3]` for one source; see `draw`.
    """
    return np.stack([self.translate(sources, z) for z in self.draw(count, seed, sampler)])

  def interpolate(
    self, sources: np.ndarray, a: np.ndarray, b: np.ndarray, steps: int = 8
  ) -> np.ndarray:
    """Translates sources into styles on the line from style image `a` to `b`, inclusive.

    Returns:
      uint8 `[steps, N, H, W, 3]`, or `[steps, H, W, 3]` for one source.
    """
    start, end = self.encode(a), self.encode(b)
    return np.stack(
      [self.translate(sources, start + t * (end - start)) for t in np.linspace(0, 1, steps)]
    )

  def _map(self, function, pictures: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Applies a compiled function in batches of one size, so that it compiles once."""
    _check(pictures)
    if pictures.ndim == 3:
      return self._map(function, pictures[None], *(other[None] for other in others))[0]
    size = min(_BATCH, len(pictures))
    results = []
    for start in range(0, len(pictures), size):
      part = [array[start : start + size] for array in (pictures, *others)]
      count = len(part[0])
      filled = [np.resize(array, (size, *array.shape[1:])) for array in part]
      results.append(np.asarray(function(self.params, *filled))[:count])
    return np.concatenate(results)


def _check(pictures: np.ndarray) -> None:
  if pictures.dtype != np.uint8 or pictures.shape[-1] != 3 or pictures.ndim not in (3, 4):
    raise ValueError(
      f'pictures must be uint8 [H, W, 3] or [N, H, W, 3], got {pictures.dtype} '
      f'{list(pictures.shape)}'
    )


def load(folder: files.Path, which: str = 'latest') -> Translator:
  """Opens the folder of a trained stage that can translate.

  Args:
    folder: folder from `methods.find`.
    which: `latest` or `best` checkpoint.

  Raises:
    RunError: the stage has another method, or its checkpoint cannot be read.
  """
  config = stage_lib.trained_config(folder, METHOD.translating)
  step, state, _ = stage_lib.load_run(folder, {'ema': shapes(config)}, which)
  params = state['ema']
  return Translator(config, step, params, **_stored_sampler(folder, config, step, params, which))


def shapes(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Shapes of `Translator.params`."""
  return {
    'style_encoder': jax.eval_shape(
      lambda: networks.init_style_encoder(networks.style_encoder(config), jax.random.key(0))
    ),
    'generator': jax.eval_shape(
      lambda: networks.init_generator(
        networks.generator(config), jax.random.key(0), config.model.z_dim
      )
    ),
  }


def _stored_sampler(folder: files.Path, config, step: int, params, which: str) -> dict[str, Any]:
  """Reads the samplers for this encoder from the mapper stage, as arguments of `Translator`.

  A mapper is used only for the encoder that it was fitted to. If it was imported, or trained by a
  version that recorded no encoder, it is used for the latest checkpoint of the stage named in its
  configuration.
  """
  if not config.model.z_dim:
    return {}
  mapper_folder = folder.parent / 'mapper'
  instead = 'styles are drawn from the Gaussian of the training codes'
  if not checkpoint.exists(mapper_folder):
    train = f'step-jax train mapper --workdir {folder.parent}'
    return {'note': f'{mapper_folder}: no mapper is trained yet, so {instead}: {train}'}
  mapper_config = stage_lib.trained_config(mapper_folder, ('mapper',))
  before = fitted.read(mapper_folder)
  here = fitted.Encoder(folder.name, step, fitted.digest(params['style_encoder']))
  if before and before.digest != here.digest:
    return {
      'note': f'{mapper_folder}: this mapper was fitted to the style encoder of {before}, not to '
      f'that of {here}, so {instead}'
    }
  named = files.resolve(files.join(folder.parent, mapper_config.init_from))
  if not before and (which != 'latest' or named != files.resolve(folder)):
    return {
      'note': f'{mapper_folder}: this mapper does not record its style encoder, and would be of '
      f'the latest checkpoint of {mapper_config.init_from}, so {instead}'
    }
  module = networks.mapper(mapper_config)
  like = {
    'mapper': jax.eval_shape(
      lambda: module.init(jax.random.key(0), jnp.zeros((1, mapper_config.model.z_dim)))['params']
    )
  }
  _, restored, scores_ = stage_lib.load_run(mapper_folder, {'params': like}, which)
  codes = fitted.read_codes(mapper_folder, config.model.z_dim)
  name, note = 'mapper', ''
  if not before:
    note = (
      f'{mapper_folder}: this mapper does not record its style encoder, and is assumed to be '
      f'fitted to {here}'
    )
  elif 'val_mapper_energy' not in scores_:
    name = 'gaussian'
    note = f'{mapper_folder}: the training of this mapper was interrupted early, so {instead}'
  elif not samplers.mapper_wins(scores_):
    name = 'gaussian'
    note = (
      f'{mapper_folder}: the mapper draws worse codes than the Gaussian (energy distance to '
      f'held-out codes {scores_["val_mapper_energy"]:.3g} against '
      f'{scores_["val_gaussian_energy"]:.3g}), so {instead}'
    )
  return {
    'codes': codes,
    'mapper': samplers.mapper(mapper_config, restored['params']['mapper'], codes),
    'sampler_name': name,
    'note': note,
    'fitted_to': before,
  }
