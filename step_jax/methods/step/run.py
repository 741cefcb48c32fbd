"""A trained run as an object: encode, translate, sample, interpolate, on numpy pictures."""

from collections.abc import Sequence
import functools
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import files, untrusted
from step_jax.errors import RunError, shown
from step_jax.methods.step import functions, networks
from step_jax.train import checkpoint

# Stages that can translate, the better one first.
TRANSLATING = ('finetune', 'translate')
CODES_FILE = 'codes.npy'
SAMPLERS = ('mapper', 'gaussian')
_BATCH = 8


class Translator:
  """The networks of a trained run.

  Pictures are uint8 `[H, W, 3]` or `[N, H, W, 3]`, RGB, of any size; results have the same leading
  axes. Style codes are float32 `[Z]` or `[N, Z]`.

  Attributes:
    config: of the stage that trained the generator.
    step: of its checkpoint.
    params: network -> averaged parameters (`style_encoder`, `generator`).
    mapper: parameters of the mapper, or None.
    mapper_module: its network, or None.
    codes: style codes `[N, Z]` of the training pictures, or None.
  """

  method = 'step'

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    step: int,
    params: dict,
    mapper: dict | None = None,
    mapper_config: ml_collections.ConfigDict | None = None,
    codes: np.ndarray | None = None,
  ):
    self.config = config
    self.step = step
    self.params = params
    self.mapper = mapper
    self.codes = codes
    encoder, generator = networks.style_encoder(config), networks.generator(config)
    self._encode = jax.jit(functools.partial(functions.encode, encoder))
    self._generate = jax.jit(functools.partial(functions.generate, generator))
    self.mapper_module = networks.mapper(mapper_config) if mapper_config else None

  def encode(self, pictures: np.ndarray) -> np.ndarray:
    """Style codes of pictures: `[N, H, W, 3] -> [N, Z]`, or `[H, W, 3] -> [Z]`."""
    return self._map(self._encode, pictures)

  def translate(
    self, sources: np.ndarray, z: np.ndarray | None = None, style: np.ndarray | None = None
  ) -> np.ndarray:
    """Translations of sources.

    Args:
      sources: `[N, H, W, 3]` or `[H, W, 3]`.
      z: style codes, `[N, Z]`, or `[Z]` for all.
      style: instead of `z`, style pictures: `[N, H, W, 3]`, or `[H, W, 3]` for all; any size.

    Returns:
      uint8 of the shape of `sources`.

    Raises:
      ValueError: not exactly one of `z` and `style` is given, or their numbers do not fit.
    """
    if (z is None) == (style is None):
      raise ValueError('translate needs either style codes (z) or style pictures (style)')
    z = self.encode(style) if z is None else np.asarray(z, np.float32)
    if sources.ndim == 3:
      return self._map(self._generate, sources, z)
    return self._map(self._generate, sources, np.broadcast_to(z, (len(sources), z.shape[-1])))

  def draw(self, count: int, seed: int = 0, how: str = '') -> np.ndarray:
    """New style codes `[count, Z]`.

    Args:
      count: how many.
      seed: the same seed draws the same styles.
      how: `mapper`, or `gaussian` with the mean and covariance of the training codes; the mapper
        where there is one by default.

    Raises:
      RunError: the run has no such sampler.
    """
    how = how or ('mapper' if self.mapper is not None else 'gaussian')
    if how == 'gaussian' and self.codes is not None:
      return draw_normal(self.codes, count, seed)
    if how == 'mapper' and self.mapper is not None:
      rng = np.random.default_rng(seed)
      latents = rng.standard_normal((count, self.config.model.z_dim)).astype(np.float32)
      return np.asarray(self.mapper_module.apply({'params': self.mapper}, latents))
    raise RunError(
      f'this run cannot draw styles by {how!r}: train its mapper stage first '
      f'(samplers are {", ".join(SAMPLERS)})'
    )

  def sample(self, sources: np.ndarray, count: int, seed: int = 0, how: str = '') -> np.ndarray:
    """Translations in `count` drawn styles, the same ones for all sources.

    Returns:
      uint8 `[count, N, H, W, 3]`, or `[count, H, W, 3]` for one source; see `draw`.
    """
    return np.stack([self.translate(sources, z) for z in self.draw(count, seed, how)])

  def interpolate(
    self, sources: np.ndarray, a: np.ndarray, b: np.ndarray, steps: int = 8
  ) -> np.ndarray:
    """Translations in styles on the line from style picture `a` to `b`, both included.

    Returns:
      uint8 `[steps, N, H, W, 3]`, or `[steps, H, W, 3]` for one source.
    """
    start, end = self.encode(a), self.encode(b)
    return np.stack(
      [self.translate(sources, start + t * (end - start)) for t in np.linspace(0, 1, steps)]
    )

  def _map(self, function, pictures: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Applies a compiled function in batches of one size, so that it compiles once."""
    if pictures.dtype != np.uint8 or pictures.shape[-1] != 3 or pictures.ndim not in (3, 4):
      raise ValueError(
        f'pictures must be uint8 [H, W, 3] or [N, H, W, 3], got {pictures.dtype} '
        f'{list(pictures.shape)}'
      )
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


def draw_normal(codes: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
  """Draws of the normal distribution with mean and covariance of codes `[N, Z]`: `[count, Z]`."""
  mean, covariance = codes.mean(axis=0), np.cov(codes.T)
  rng = np.random.default_rng(seed)
  return rng.multivariate_normal(mean, covariance, count).astype(np.float32)


def load(workdir: str | os.PathLike, which: str = 'latest') -> Translator:
  """Opens a trained run.

  Args:
    workdir: of the run, or the folder of one of its stages.
    which: `latest` or `best` checkpoint.

  Raises:
    RunError: nothing there can translate yet.
  """
  folder = find_stage(workdir)
  config = _config(folder, TRANSLATING)
  like = {
    'style_encoder': jax.eval_shape(
      lambda: networks.init_style_encoder(networks.style_encoder(config), jax.random.key(0))
    ),
    'generator': jax.eval_shape(
      lambda: networks.init_generator(
        networks.generator(config), jax.random.key(0), config.model.z_dim
      )
    ),
  }
  step, params = _restore(folder, 'ema', like, which)
  mapper_folder = folder.parent / 'mapper'
  if not checkpoint.exists(mapper_folder):
    return Translator(config, step, params)
  mapper_config = _config(mapper_folder, ('mapper',))
  module = networks.mapper(mapper_config)
  like = {
    'mapper': jax.eval_shape(
      lambda: module.init(jax.random.key(0), jnp.zeros((1, mapper_config.model.z_dim)))['params']
    )
  }
  _, restored = _restore(mapper_folder, 'params', like, which)
  codes = _read_codes(mapper_folder / CODES_FILE, config.model.z_dim)
  return Translator(config, step, params, restored['mapper'], mapper_config, codes)


def _config(folder: files.Path, stages: Sequence[str]) -> ml_collections.ConfigDict:
  config = config_lib.read(folder)
  if config.stage not in stages:
    raise RunError(f'{folder}: was trained as {shown(config.stage)!r}, not as {stages}')
  return config


def _read_codes(path: files.Path, z_dim: int) -> np.ndarray:
  """Style codes `[N, Z]` of the training pictures, as the mapper stage keeps them."""
  remedy = "give the mapper stage's training command again, which writes it anew"
  if not path.is_file():
    raise RunError(f'{path}: is missing: {remedy}')
  codes = untrusted.read_arrays(path, remedy)['']
  if codes.shape[1:] != (z_dim,) or codes.dtype != np.float32 or not np.isfinite(codes).all():
    raise untrusted.damaged(path, 'no codes', remedy)
  return codes


def find_stage(workdir: str | os.PathLike, stages: Sequence[str] = TRANSLATING) -> files.Path:
  """Folder of the best stage of a run that is trained and can translate.

  Raises:
    RunError: there is none.
  """
  workdir = files.path(workdir)
  candidates = [workdir / stage for stage in stages]
  if (workdir / config_lib.FILE).is_file() and workdir.name in stages:
    candidates.insert(0, workdir)
  for folder in candidates:
    if checkpoint.exists(folder):
      return folder
  raise RunError(
    f'{workdir}: has no trained generator: run `step-jax train translate --workdir {workdir}`'
  )


def _restore(folder: files.Path, part: str, like: dict, which: str) -> tuple[int, dict]:
  """Reads networks to the default device; returns the step of their checkpoint too."""
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like
  )
  checkpoints = checkpoint.Checkpoints(folder, config_lib.read(folder).best_metric, create=False)
  try:
    if which == 'best':
      step = checkpoints.best
      return step, checkpoints.restore({part: like}, step)[part]
    step, found = checkpoints.restore_newest({part: like})
    return step, found[part]
  finally:
    checkpoints.close()
