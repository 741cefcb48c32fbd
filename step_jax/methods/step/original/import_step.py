"""Imports checkpoints of the original StEP as stages of a run."""

from collections.abc import Mapping
import functools
import logging
import pathlib

import jax
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import files, places, untrusted
from step_jax.errors import RunError, WeightsError
from step_jax.methods.step.fitted import CODES_FILE
from step_jax.methods.step.original import step_tf, tf_checkpoint
from step_jax.methods.step.stages import pretrain, translate
from step_jax.methods.step.steps import mapper
from step_jax.train import checkpoint, lock
from step_jax.train import stage as stage_lib
from step_jax.weights.tensors import Tensor

log = logging.getLogger(__name__)

# Required networks of a stage; other networks that the checkpoint lacks are newly initialised.
_NEEDED = {'pretrain': ('style_encoder',), 'finetune': ('style_encoder', 'generator')}
_ANY_SIZE = (64, 64)
_STEP = 'global_step'
# Maximum number of channels of a layer.
_WIDEST = 1 << 16


def import_step(
  prefix: str | pathlib.Path,
  workdir: str | pathlib.Path,
  data: str = '',
  preset: str = '',
  codes: str | pathlib.Path | None = None,
) -> pathlib.Path:
  """Imports a checkpoint of the original as a stage of a run.

  A checkpoint of pre-training becomes `pretrain`, one of the main training `finetune`, and one of
  the mapper, with the codes that it was fitted to, `mapper`. Shapes determine the widths, the skip
  connections and the length of codes. Optimizer states are newly initialised.

  Args:
    prefix: prefix of the checkpoint, such as `model.ckpt-1000`.
    workdir: work directory of the run.
    data: images for evaluation and further training.
    preset: settings of a known data set.
    codes: for the mapper: `zs_train.npy` of the original, `[N, Z]` or `[N, 1, 1, Z]`.

  Returns:
    Folder of the stage.

  Raises:
    UserError: the files are not of StEP, or are incomplete, or the stage already exists.
  """
  prefix, workdir = places.expand(prefix), places.expand(workdir)
  tensors = tf_checkpoint.read(prefix)
  variables = {
    name: _finite(prefix, name, tensor.read()) for name, tensor in tensors.items() if _is_ours(name)
  }
  raw = {name: x for name, x in variables.items() if 'ExponentialMovingAverage' not in name}
  params, averages = step_tf.from_step_tf(raw), step_tf.from_step_tf(variables)
  step = _step(prefix, tensors)
  if 'mapper' in params:
    stage = 'mapper'
    if codes is None:
      raise WeightsError(f'{prefix}: is a mapper: give the codes that it was fitted to (--codes)')
  else:
    stage = 'finetune' if 'generator' in params else 'pretrain'
    for name in _NEEDED[stage]:
      if name not in params:
        raise WeightsError(f'{prefix}: has no {name} of StEP: give another checkpoint')
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{preset}')
  config.data.path = data or config.data.path
  train_codes = np.zeros((0, 0))
  if stage == 'mapper':
    train_codes = _read_codes(codes)
    _set_mapper_shape(config, prefix, params['mapper'])
    if train_codes.shape[1] != config.model.z_dim:
      raise WeightsError(
        f'{codes}: has codes of {train_codes.shape[1]} numbers, but {prefix} was fitted to codes '
        f'of {config.model.z_dim}: give these codes'
      )
    init = mapper.make(config, len(train_codes)).init
  else:
    _set_shape(config, prefix, params)
    init = (pretrain if stage == 'pretrain' else translate).abstract(config, _ANY_SIZE).step.init
  # Only shapes: networks with the widths of an untrusted header must not be allocated.
  shapes = jax.eval_shape(init, jax.random.key(config.seed))
  for trees, imported in ((shapes.params, params), (shapes.ema, averages)):
    for name in sorted(set(trees) & set(imported)):
      _check_fits(prefix, name, trees[name], imported[name])
  state = jax.jit(init)(jax.random.key(config.seed))
  state = state.replace(
    step=np.int32(step), params={**state.params, **_of(state.params, params)},
    ema={**state.ema, **_of(state.ema, averages)},
  )  # fmt: skip
  for name in sorted(set(state.params) - set(params)):
    log.info('%s: has no %s: a new one is initialised', prefix, name)
  for name in sorted(set(params) - set(state.params)):
    log.info('%s: its %s is not imported: this stage has none', prefix, name)
  return _save(stage_lib.stage_folder(workdir, stage), config, state, step, train_codes)


def _is_ours(name: str) -> bool:
  """Whether a variable is a parameter of a network; others belong to optimizers or are counters."""
  try:
    return bool(step_tf.step_tf_path(name))
  except WeightsError:
    return False


def _finite(prefix: pathlib.Path, name: str, array: np.ndarray) -> np.ndarray:
  if not np.isfinite(array).all():
    raise WeightsError(f'{prefix}: {name} has values that are not finite: copy it again')
  return array


def _step(prefix: pathlib.Path, tensors: Mapping[str, Tensor]) -> int:
  """Number of training steps; 0 if unknown."""
  if _STEP not in tensors:
    return 0
  step = tensors[_STEP].read()
  if step.shape or step.dtype.kind != 'i' or not 0 <= step < 2**31:
    raise WeightsError(f'{prefix}: its {_STEP} is not a number of steps: copy it again')
  return int(step)


def _set_shape(
  config: ml_collections.ConfigDict, prefix: pathlib.Path, params: Mapping[str, Mapping]
) -> None:
  """Sets the fields of `model` from the shapes of parameters."""
  model, side = config.model, functools.partial(_side, prefix, params)
  model.z_dim = side('style_encoder/mean', -1)
  model.encoder_width = side('style_encoder/conv0', -1)
  if 'generator' in params:
    width = side('generator/content_encoder/conv0', -1)
    read = side('generator/decoder/rgb', 2)
    model.generator_width = width
    model.skip = read >= 2 * width
    model.code_everywhere = read % width == model.z_dim % width and read not in (width, 2 * width)
  if 'discriminator' in params:
    model.num_scales = len(params['discriminator'])
    model.discriminator_width = side('discriminator/scale0/conv0', -1)


def _set_mapper_shape(
  config: ml_collections.ConfigDict, prefix: pathlib.Path, params: Mapping
) -> None:
  side = functools.partial(_side, prefix, params)
  config.model.z_dim = side('out', -1)
  hidden = sorted(name for name in params if name != 'out')
  config.model.mapper_hidden = tuple(side(name, -1) for name in hidden)
  config.imle.standardize = False


def _side(prefix: pathlib.Path, params: Mapping, path: str, axis: int) -> int:
  """Length of an axis of a kernel.

  Raises:
    WeightsError: the kernel or its axis does not exist.
  """
  node = params
  for name in (*path.split('/'), 'kernel'):
    node = node.get(name) if isinstance(node, Mapping) else None
  shape = getattr(node, 'shape', ())
  if len(shape) <= max(axis, 0) or not 0 < shape[axis] <= _WIDEST:
    raise WeightsError(f'{prefix}: has no {path}/kernel of StEP: give another checkpoint')
  return shape[axis]


def _check_fits(prefix: pathlib.Path, name: str, wanted: Mapping, given: Mapping) -> None:
  """Compares the parameters of a network with the expected ones.

  Raises:
    WeightsError: a parameter is missing or unknown, or has another shape.
  """
  shapes = [
    {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape for path, leaf in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (wanted, given))
  ]
  for path in sorted(set(shapes[0]) | set(shapes[1])):
    wanted, actual = (tree.get(path, 'nothing') for tree in shapes)
    if wanted != actual:
      raise WeightsError(
        f'{prefix}: {name}/{path} is {actual}, expected {wanted}: the checkpoint is incomplete, or '
        'its networks were changed'
      )


def _of(wanted: Mapping, given: Mapping) -> dict:
  """The given networks whose names are in `wanted`."""
  return {name: tree for name, tree in given.items() if name in wanted}


def _read_codes(path: str | pathlib.Path) -> np.ndarray:
  """Reads codes of the original, float32 `[N, Z]`."""
  path, remedy = places.expand(path), 'give zs_train.npy'
  if path.suffix != '.npy' or not path.is_file():
    raise WeightsError(f'{path}: no such .npy file: {remedy}')
  codes = untrusted.read_arrays(path, remedy)['']
  if codes.ndim < 2 or codes.dtype.kind != 'f' or not codes.size or not np.isfinite(codes).all():
    raise WeightsError(f'{path}: has no style codes: {remedy}')
  return codes.reshape(len(codes), -1).astype(np.float32)


def _save(folder: pathlib.Path, config, state, step: int, codes: np.ndarray) -> pathlib.Path:
  with lock.hold(folder):
    if checkpoint.exists(folder):
      raise RunError(f'{folder}: is already trained: choose another --workdir')
    config_lib.save(config, folder)
    if len(codes):
      files.write_array(folder / CODES_FILE, codes)
    checkpoints = checkpoint.Checkpoints(folder, config.best_metric)
    try:
      checkpoints.save(step, jax.device_put(state))
    finally:
      checkpoints.close()
  return folder
