"""A work directory from checkpoints of the original StEP, as if it had been trained here."""

from collections.abc import Mapping
import logging
import pathlib

import jax
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import files, weights
from step_jax.errors import RunError, WeightsError
from step_jax.methods import abstract, mapper
from step_jax.stages import stage as stage_lib
from step_jax.stages.mapper import CODES_FILE
from step_jax.train import checkpoint, lock
from step_jax.weights import step_tf, tf_checkpoint

log = logging.getLogger(__name__)

# Without these a stage is of no use; other networks start fresh where the checkpoint lacks them.
_NEEDED = {'pretrain': ('style_encoder',), 'finetune': ('style_encoder', 'generator')}
_ANY_SIZE = (64, 64)
_STEP = 'global_step'


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
  prefix, workdir = pathlib.Path(prefix).expanduser(), pathlib.Path(workdir)
  tensors = tf_checkpoint.read(prefix)
  variables = {name: tensor.read() for name, tensor in tensors.items() if _is_ours(name)}
  raw = {name: x for name, x in variables.items() if 'ExponentialMovingAverage' not in name}
  params, averages = weights.from_step_tf(raw), weights.from_step_tf(variables)
  step = int(tensors[_STEP].read()) if _STEP in tensors else 0
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
  found = np.zeros((0, 0))
  if stage == 'mapper':
    found = _read_codes(codes)
    _set_mapper_shape(config, params['mapper'])
    init = mapper.make(config, len(found)).init
  else:
    _set_shape(config, params)
    init = abstract.abstract_step(config, _ANY_SIZE).method.init
  state = jax.jit(init)(jax.random.key(config.seed))
  state = state.replace(
    step=np.int32(step),
    params={name: _fitting(prefix, name, tree, params) for name, tree in state.params.items()},
    ema={name: _fitting(prefix, name, tree, averages) for name, tree in state.ema.items()},
  )
  for name in sorted(set(params) - set(state.params)):
    log.info('%s: its %s is left out: this stage has none', prefix, name)
  return _save(stage_lib.stage_folder(workdir, stage), config, state, step, found)


def _is_ours(name: str) -> bool:
  """Whether a variable is a parameter; others are of optimisers, or count."""
  try:
    return bool(step_tf.step_tf_path(name))
  except WeightsError:
    return False


def _set_shape(config: ml_collections.ConfigDict, params: Mapping) -> None:
  """Widths and the like, from the shapes of parameters."""
  model, encoder = config.model, params['style_encoder']
  model.z_dim = encoder['mean']['kernel'].shape[-1]
  model.encoder_width = encoder['conv0']['kernel'].shape[-1]
  if 'generator' in params:
    generator = params['generator']
    width = generator['content_encoder']['conv0']['kernel'].shape[-1]
    read = generator['decoder']['rgb']['kernel'].shape[2]
    model.generator_width = width
    model.skip = read >= 2 * width
    model.code_everywhere = read % width == model.z_dim % width and read not in (width, 2 * width)
  if 'discriminator' in params:
    model.num_scales = len(params['discriminator'])
    model.discriminator_width = params['discriminator']['scale0']['conv0']['kernel'].shape[-1]


def _set_mapper_shape(config: ml_collections.ConfigDict, params: Mapping) -> None:
  config.model.z_dim = params['out']['kernel'].shape[-1]
  hidden = sorted(name for name in params if name != 'out')
  config.model.mapper_hidden = tuple(params[name]['kernel'].shape[-1] for name in hidden)


def _fitting(prefix: pathlib.Path, name: str, fresh: Mapping, given: Mapping) -> Mapping:
  """A network as given, or fresh where none was.

  Raises:
    WeightsError: a parameter is missing, foreign, or of another shape.
  """
  if name not in given:
    log.info('%s: holds no %s, which starts fresh', prefix, name)
    return fresh
  shapes = [
    {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape for path, leaf in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (fresh, given[name]))
  ]
  for path in sorted(set(shapes[0]) | set(shapes[1])):
    wanted, there = (tree.get(path, 'nothing') for tree in shapes)
    if wanted != there:
      raise WeightsError(
        f'{prefix}: {name}/{path} is {there}, but {wanted} was expected: the checkpoint is not '
        'whole, or its networks were changed'
      )
  return given[name]


def _read_codes(path: str | pathlib.Path) -> np.ndarray:
  try:
    codes = np.load(pathlib.Path(path).expanduser(), allow_pickle=False)
  except (OSError, ValueError) as error:
    raise WeightsError(f'{path}: cannot be read as codes ({error}): give zs_train.npy') from None
  if codes.ndim < 2 or codes.dtype.kind != 'f':
    raise WeightsError(f'{path}: holds no style codes: give zs_train.npy')
  return codes.reshape(len(codes), -1).astype(np.float32)


def _save(folder: pathlib.Path, config, state, step: int, codes: np.ndarray) -> pathlib.Path:
  with lock.hold(folder):
    if checkpoint.exists(folder):
      raise RunError(f'{folder}: is trained already: choose another --workdir')
    config_lib.save(config, folder)
    if len(codes):
      files.write_array(folder / CODES_FILE, codes)
    checkpoints = checkpoint.Checkpoints(folder, config.best_metric)
    try:
      checkpoints.save(step, jax.device_put(state))
    finally:
      checkpoints.close()
  return folder
