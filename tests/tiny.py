"""The smallest runs, and a record of the configuration fields that code reads."""

import contextlib
import functools
import pathlib

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest

from step_jax import config as config_lib
from step_jax import methods
from step_jax.data import swatches
from step_jax.evaluate import realism, resizing
from step_jax.evaluate.resizing import resize_for_lpips

__all__ = [
  'FIELDS',
  'PSP_FIELDS',
  'STAGES',
  'make_config',
  'record_fields',
  'record_programs',
  'score_at',
  'train',
  'write_pictures',
]

STAGES = [stage.name for stage in methods.METHODS['step'].stages]
FIELDS = {
  'batch_size': 4,
  'data.crop': (16, 16),
  'features.weights': 'random',
  'features.net': 'squeezenet1_1',
  'features.taps': ('conv1',),
  'features.tap_weights': (1.0,),
  'model.encoder_width': 4,
  'model.generator_width': 4,
  'model.discriminator_width': 4,
  'model.num_scales': 2,
  'schedule.fixed_kimg': 0.016,
  'schedule.total_kimg': 0.024,
  'schedule.epochs': 6,
  'every.log': 2,
  'every.checkpoint': 3,
  'every.evaluate': 6,
}


# The smallest StyleGAN2 and pSp.
PSP_FIELDS = {
  'features.taps': ('conv1',),
  'model.max_channels': 4,
  'model.style_dim': 8,
  'model.mapping_depth': 2,
  'model.encoder': 'into_w_plus',
  'model.encoder_size': 64,
  'model.body_width': 16,
  'model.body_depths': (1, 1, 1, 1),
  'loss.lpips': 0.0,
}


def write_pictures(folder: pathlib.Path, width: int, height: int) -> pathlib.Path:
  """Writes 24 training and 5 validation pairs, side by side; `width`, `height`: of a half, px."""
  for split, count in (('train', 24), ('val', 5)):
    (folder / split).mkdir()
    for i in range(count):
      pair = swatches.render(f'{split}/{i}', width)
      image = np.concatenate([pair['A'], pair['B']], axis=1)[:height]
      Image.fromarray(image).save(folder / split / f'{i:02d}.png')
  return folder


def make_config(stage: str, folder: pathlib.Path, **fields) -> ConfigDict:
  config = config_lib.load(config_lib.stage_file(stage))
  known = dict(config_lib.flatten(config))
  wanted = {**FIELDS, 'data.path': str(folder), **fields}
  config.update_from_flattened_dict({k: v for k, v in wanted.items() if k in known})
  return config


def train(stage: str, folder: pathlib.Path, workdir: pathlib.Path, **fields) -> pathlib.Path:
  return methods.train(make_config(stage, folder, **fields), workdir)


@contextlib.contextmanager
def score_at(lpips_size: int, realism_size: int):
  """Sets the image sizes of score networks, px; protocols have 256 and 224."""
  resize = functools.partial(resize_for_lpips, size=lpips_size)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(resizing, 'resize_for_lpips', resize)
    patch.setattr(realism, '_SIZE', realism_size)
    yield


@contextlib.contextmanager
def record_fields():
  """Yields a dict `stage -> fields read`, without reads for checking and saving."""
  read: dict[str, set[str]] = {}
  paths: dict[int, tuple[str, str]] = {}
  kept = []  # Keeps configurations alive, so that their ids are not reused.
  get = ConfigDict.__getitem__

  def recorded(self, key):
    value = get(self, key)
    stage, prefix = paths.get(id(self), ('', ''))
    if not prefix and 'stage' in self.keys():
      stage = get(self, 'stage')
    if isinstance(value, ConfigDict):
      paths[id(value)] = stage, f'{prefix}{key}.'
      kept.append(value)
    elif stage:
      read.setdefault(stage, set()).add(prefix + str(key))
    return value

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(config_lib, 'validate', lambda config: None)
    patch.setattr(ConfigDict, '__getitem__', recorded)
    yield read


class _Recorded:
  """A compiled function that records the shapes of its arguments."""

  def __init__(self, jitted, note):
    self._jitted, self._note = jitted, note

  def __call__(self, *args, **kwargs):
    self._note(args, kwargs)
    return self._jitted(*args, **kwargs)

  def __getattr__(self, name):
    return getattr(self._jitted, name)


def _shape(x) -> jax.ShapeDtypeStruct:
  is_key = jax.dtypes.issubdtype(getattr(x, 'dtype', np.float32), jax.dtypes.extended)
  return jax.ShapeDtypeStruct(np.shape(x), x.dtype if is_key else jnp.result_type(x))


@contextlib.contextmanager
def record_programs():
  """Yields a dict of the library's compiled functions, filled later: name -> function, arguments.

  Functions that are compiled at import time are not included.
  """
  found = {}
  compile_ = jax.jit

  def jit(function=None, **options):
    if function is None:
      return lambda function: jit(function, **options)
    jitted = compile_(function, **options)
    inner = getattr(function, 'func', function)
    if not inner.__module__.startswith('step_jax.'):
      return jitted
    name = f'{inner.__module__.removeprefix("step_jax.")}.{inner.__qualname__}'

    def note(args, kwargs):
      if not kwargs:
        # Several programs may share a name, such as `<lambda>`.
        args = jax.tree.map(_shape, args)
        key = name, str(jax.tree.structure(args)), str(jax.tree.leaves(args)[-1:])
        found.setdefault(key, (function, args))

    return _Recorded(jitted, note)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', jit)
    yield found
