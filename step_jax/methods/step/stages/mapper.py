"""Stage 4: data and evaluation of the mapper."""

import itertools
import logging

import jax
import ml_collections
import numpy as np

from step_jax import config as config_lib
from step_jax import data, files
from step_jax.data import pipeline
from step_jax.errors import RunError
from step_jax.evaluate import distributions, scores
from step_jax.methods.step import fitted, functions, networks, samplers
from step_jax.methods.step.steps import mapper
from step_jax.train import checkpoint, loop
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

_ENCODE_BATCH = 8
# Maximum number of held-out codes to compare with, sampled codes per held-out code, and minimum
# number of sampled codes: energy distances of fewer codes are too noisy.
_MOST_HELD, _DRAWN_PER_HELD, _FEWEST_DRAWN = 1000, 10, 1000


def build(
  config: ml_collections.ConfigDict, workdir: files.Path, mesh: jax.sharding.Mesh
) -> stage_lib.Training:
  """Creates stage 4.

  Encodes the training images, and stores their codes and the digest of the encoder in the folder of
  the stage.

  Raises:
    RunError: the previous stage is not trained or has no styles, or the mapper was fitted to
      another encoder.
  """
  folder = stage_lib.stage_folder(workdir, config.stage)
  encoder, params = _load_encoder(config, stage_lib.stage_folder(workdir, config.init_from), mesh)
  trained = checkpoint.exists(folder)
  if trained:
    _check_same(folder, encoder)
  codes = _encode(config, params)
  if jax.process_index() == 0 and not (trained and _has_codes(folder, config.model.z_dim)):
    files.make_folder(folder)
    fitted.write(folder, encoder, codes['train'])
  units = mapper.standardization(config, codes['train'])
  rng = np.random.default_rng(config.seed)
  used = rng.permutation(codes['train'])[: config.imle.max_codes]
  return stage_lib.Training(
    step=mapper.make(config, len(used)),
    batches=lambda start: itertools.repeat({}),
    num_steps=config.schedule.epochs,
    items_per_step=len(used),
    frozen={'codes': mapper.in_training_units(used, *units)},
    evaluate=_evaluator(config, codes),
  )


def _load_encoder(config, before: files.Path, mesh) -> tuple[fitted.Encoder, dict]:
  """The current averaged style encoder of the previous stage: its record and parameters."""
  if (before / config_lib.FILE).is_file() and not config_lib.read(before).model.z_dim:
    raise RunError(
      f'{before}: has no styles (model.z_dim is 0), so there are none to draw: use it without a '
      'mapper'
    )
  module = networks.style_encoder(config)
  like = jax.eval_shape(lambda: networks.init_style_encoder(module, jax.random.key(0)))
  step, restored = stage_lib.load_newest(before, {'ema': {'style_encoder': like}}, mesh)
  params = restored['ema']
  return fitted.Encoder(before.name, step, fitted.digest(params['style_encoder'])), params


def _check_same(folder: files.Path, encoder: fitted.Encoder) -> None:
  """Checks that an existing mapper was fitted to the current encoder.

  Raises:
    RunError: it was fitted to another or an unknown encoder.
  """
  before = fitted.read(folder)
  remedy = f'remove {folder}, then re-run the command to fit a mapper to {encoder}'
  if before is None:
    raise RunError(
      f'{folder}: this mapper was imported, or trained by an earlier version, and does not record '
      f'its style encoder: use it unchanged, or {remedy}'
    )
  if before.digest != encoder.digest:
    raise RunError(
      f'{folder}: this mapper was fitted to the style encoder of {before}, which has changed since '
      f'({encoder}): {remedy}'
    )


def _has_codes(folder: files.Path, z_dim: int) -> bool:
  try:
    fitted.read_codes(folder, z_dim)
  except RunError as error:
    log.warning('%s', error)
    return False
  return True


def _encode(config, params) -> dict[str, np.ndarray]:
  """Style codes `[N, Z]` of the targets of `train` and `val`."""
  pairs = data.open_config(config.data)
  _, target = data.sides(pairs, config.data.direction)
  module = networks.style_encoder(config)
  encode = jax.jit(lambda params, pictures: {'z': functions.encode(module, params, pictures)})
  codes = {}
  for split in ('train', 'val'):
    codes[split] = np.zeros((0, config.model.z_dim), np.float32)
    if pairs.splits.get(split):
      examples = pipeline.eval_examples(
        pairs.split(split), {'target': target}, config.data.eval_crop
      )
      batches = pipeline.eval_batches(examples, _ENCODE_BATCH)
      codes[split] = scores.collect(lambda batch: encode(params, batch['target']), batches)['z']
  return codes


def _evaluator(config, codes):
  """Compares codes sampled by the mapper, and from a Gaussian of training codes, with real ones.

  See `distributions.SampleDistances`. Real codes are held out if there is a validation split.
  """
  real = codes['val']
  if not len(real):
    log.warning('no validation split: drawn codes are compared with the training codes')
    real = codes['train']
  real = np.random.default_rng(config.seed).permutation(real)[:_MOST_HELD]
  count = max(_DRAWN_PER_HELD * len(real), _FEWEST_DRAWN)

  def score(sampler: samplers.Sampler) -> dict[str, float]:
    distances = distributions.sample_distances(real, sampler.draw(count, config.seed))
    return {
      f'val_{sampler.name}_distance': distances.coverage,
      f'val_{sampler.name}_precision': distances.precision,
      f'val_{sampler.name}_energy': distances.energy,
    }

  gaussian = score(samplers.gaussian(codes['train']))

  def evaluate(state):
    params = jax.device_get(state.params['mapper'])
    scores_ = score(samplers.mapper(config, params, codes['train'])) | gaussian
    if not samplers.mapper_wins(scores_):
      log.warning(
        'the mapper samples worse codes than the Gaussian of the training codes (energy distance '
        'to %d real codes %.4g against %.4g), so styles are sampled from the Gaussian by default '
        '(override: --sampler mapper); more epochs or more training images may help',
        len(real),
        scores_['val_mapper_energy'],
        scores_['val_gaussian_energy'],
      )
    return loop.Evaluation(scores_)

  return evaluate
