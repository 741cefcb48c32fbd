"""A work directory from checkpoints of the original StEP, as if it had been trained here."""

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

# Without these a stage is of no use; other networks start fresh where the checkpoint lacks them.
_NEEDED = {'pretrain': ('style_encoder',), 'finetune': ('style_encoder', 'generator')}
_ANY_SIZE = (64, 64)
_STEP = 'global_step'
# No layer has more channels, whatever a shape promises.
_WIDEST = 1 << 16


def import_step(
  prefix: str | pathlib.Path,
  workdir: str | pathlib.Path,
  data: str = '',
  preset: str = '',
  codes: str | pathlib.Path | None = None,
) -> pathlib.Path:
  """Turns a checkpoint of the original into a stage of a run.

  One of its pre-training becomes `pretrain`, one of its main training `finetune`, one of its
  mapper, with the codes that it was fitted to, `mapper`. Widths, skips and the length of codes are
  read from the shapes. Optimisers start fresh.

  Args:
    prefix: of the checkpoint, as `model.ckpt-1000`.
    workdir: of the run.
    data: pictures, for evaluation and further training.
    preset: settings of a known data set.
    codes: for the mapper: the original's `zs_train.npy` `[N, Z]` or `[N, 1, 1, Z]`.

  Returns:
    The stage's folder.

  Raises:
    UserError: the files are not StEP's, or not whole, or the stage is there already.
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
        raise WeightsError(f'{prefix}: holds no {name} of StEP: give another checkpoint')
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{preset}')
  config.data.path = data or config.data.path
  train_codes = np.zeros((0, 0))
  if stage == 'mapper':
    train_codes = _read_codes(codes)
    _set_mapper_shape(config, prefix, params['mapper'])
    if train_codes.shape[1] != config.model.z_dim:
      raise WeightsError(
        f'{codes}: codes of {train_codes.shape[1]} numbers, but {prefix} was fitted to codes of '
        f'{config.model.z_dim}: give those'
      )
    init = mapper.make(config, len(train_codes)).init
  else:
    _set_shape(config, prefix, params)
    init = (pretrain if stage == 'pretrain' else translate).abstract(config, _ANY_SIZE).step.init
  # By their shapes alone: widths that only a header promises must not be made.
  shapes = jax.eval_shape(init, jax.random.key(config.seed))
  for trees, given in ((shapes.params, params), (shapes.ema, averages)):
    for name in sorted(set(trees) & set(given)):
      _check_fits(prefix, name, trees[name], given[name])
  state = jax.jit(init)(jax.random.key(config.seed))
  state = state.replace(
    step=np.int32(step), params={**state.params, **_of(state.params, params)},
    ema={**state.ema, **_of(state.ema, averages)},
  )  # fmt: skip
  for name in sorted(set(state.params) - set(params)):
    log.info('%s: holds no %s, which starts fresh', prefix, name)
  for name in sorted(set(params) - set(state.params)):
    log.info('%s: its %s is left out: this stage has none', prefix, name)
  return _save(stage_lib.stage_folder(workdir, stage), config, state, step, train_codes)


def _is_ours(name: str) -> bool:
  """Whether a variable is a parameter; others are of optimisers, or count."""
  try:
    return bool(step_tf.step_tf_path(name))
  except WeightsError:
    return False


def _finite(prefix: pathlib.Path, name: str, array: np.ndarray) -> np.ndarray:
  if not np.isfinite(array).all():
    raise WeightsError(f'{prefix}: {name} has values that are no numbers: copy it again')
  return array


def _step(prefix: pathlib.Path, tensors: Mapping[str, Tensor]) -> int:
  """How many steps were trained; 0 where that was not kept."""
  if _STEP not in tensors:
    return 0
  step = tensors[_STEP].read()
  if step.shape or step.dtype.kind != 'i' or not 0 <= step < 2**31:
    raise WeightsError(f'{prefix}: its {_STEP} is no number of steps: copy it again')
  return int(step)


def _set_shape(
  config: ml_collections.ConfigDict, prefix: pathlib.Path, params: Mapping[str, Mapping]
) -> None:
  """Widths and the like, from the shapes of parameters."""
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
  """The length of an axis of a kernel.

  Raises:
    WeightsError: there is no such kernel, or it has no such axis.
  """
  node = params
  for name in (*path.split('/'), 'kernel'):
    node = node.get(name) if isinstance(node, Mapping) else None
  shape = getattr(node, 'shape', ())
  if len(shape) <= max(axis, 0) or not 0 < shape[axis] <= _WIDEST:
    raise WeightsError(f'{prefix}: holds no {path}/kernel of StEP: give another checkpoint')
  return shape[axis]


def _check_fits(prefix: pathlib.Path, name: str, wanted: Mapping, given: Mapping) -> None:
  """Compares a network with what is given.

  Raises:
    WeightsError: a parameter is missing, foreign, or of another shape.
  """
  shapes = [
    {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape for path, leaf in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (wanted, given))
  ]
  for path in sorted(set(shapes[0]) | set(shapes[1])):
    wanted, there = (tree.get(path, 'nothing') for tree in shapes)
    if wanted != there:
      raise WeightsError(
        f'{prefix}: {name}/{path} is {there}, but {wanted} was expected: the checkpoint is not '
        'whole, or its networks were changed'
      )


def _of(wanted: Mapping, given: Mapping) -> dict:
  """Those of the given networks that are wanted."""
  return {name: tree for name, tree in given.items() if name in wanted}


def _read_codes(path: str | pathlib.Path) -> np.ndarray:
  """The original's codes `[N, Z]`, float32."""
  path, remedy = places.expand(path), 'give zs_train.npy'
  if path.suffix != '.npy' or not path.is_file():
    raise WeightsError(f'{path}: no such file of codes: {remedy}')
  codes = untrusted.read_arrays(path, remedy)['']
  if codes.ndim < 2 or codes.dtype.kind != 'f' or not codes.size or not np.isfinite(codes).all():
    raise WeightsError(f'{path}: holds no style codes: {remedy}')
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
