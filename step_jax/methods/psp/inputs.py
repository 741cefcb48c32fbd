"""Which images a task trains on: what the encoder reads, and what it is to give."""

from collections.abc import Iterator, Mapping

import ml_collections
import numpy as np
from PIL import Image

from step_jax import data
from step_jax.data import augment, pipeline
from step_jax.methods.psp import transforms


def sides(config: ml_collections.ConfigDict, found: data.PairSet) -> dict[str, str]:
  """Role (`source`, `target`) -> side of an example; most tasks read the target itself."""
  source, target = data.sides(found, config.data.direction)
  own = config.task in ('encode', 'frontalize', 'super_resolution')
  return {'source': target if own else source, 'target': target}


def prepare(config: ml_collections.ConfigDict, source: np.ndarray, factor: int = 0) -> np.ndarray:
  """What the encoder reads of an image.

  Args:
    config: of the stage.
    source: uint8 `[H, W, 3]`, for `sketch` also `[H, W, 1]`; for `segmentation` classes `[H, W]`,
      or an image whose channels are equal.
    factor: by which it is reduced first, and then enlarged again; 0 for not at all.

  Returns:
    uint8 `[S, S, 3]` for the encoder's size S; `[S, S, 1]` for `sketch`, `[S, S]` of classes for
    `segmentation`.

  Raises:
    DataError: a label map has a class that the encoder does not know.
  """
  size, channels = config.model.encoder_size, config.model.input_channels
  if config.task == 'segmentation':
    labels = source if source.ndim == 2 else source[..., 0]
    transforms.check_labels(labels, channels, 'a label map')
    return transforms.resize_labels(labels, size)
  if config.task == 'sketch':
    grey = source[..., 0]
    if source.shape[-1] == 3:
      grey = np.asarray(Image.fromarray(source).convert('L'))
    return _resized(grey, size)[..., None]
  source = _resized(source, size)
  return transforms.degrade(source, factor) if factor else source


def _resized(image: np.ndarray, size: int) -> np.ndarray:
  return image if image.shape[:2] == (size, size) else transforms.resize(image, size)


def train_example(
  config: ml_collections.ConfigDict,
  example: Mapping[str, np.ndarray],
  side_of: Mapping[str, str],
  rng: np.random.Generator,
) -> dict[str, np.ndarray]:
  """A random view of an example, `{'source', 'target'}`; see `prepare`."""
  settings = config.data
  images = {role: example[side] for role, side in side_of.items()}
  apart = config.task == 'frontalize' and settings.flip
  images = augment.augment(images, rng, settings.crop, (), settings.flip)
  if apart and rng.random() < 0.5:
    images['source'] = images['source'][:, ::-1]
  factor = 0
  if config.task == 'super_resolution':
    factor = int(rng.choice(settings.factors))
  source = prepare(config, np.ascontiguousarray(images['source']), factor)
  return {'source': source, 'target': np.ascontiguousarray(images['target'])}


def eval_crop(config: ml_collections.ConfigDict) -> tuple[int, int]:
  """Height and width of targets for validation; whole images would not be squares."""
  return config.data.eval_crop if any(config.data.eval_crop) else config.data.crop


def eval_examples(
  config: ml_collections.ConfigDict,
  found: data.PairSet,
  split: str,
  limit: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Examples of a split in order and unmirrored, `{'source', 'target'}`; see `prepare`.

  Super-resolution takes its factors in turn.
  """
  examples = pipeline.eval_examples(
    found.split(split), sides(config, found), eval_crop(config), limit
  )
  factors = config.data.factors if config.task == 'super_resolution' else (0,)
  for i, example in enumerate(examples):
    source = prepare(config, example['source'], factors[i % len(factors)])
    yield {'source': source, 'target': example['target']}


def shown(config: ml_collections.ConfigDict, source: np.ndarray) -> np.ndarray:
  """What the encoder reads as an image for people, uint8 `[S, S, 3]`."""
  if config.task == 'segmentation':
    return transforms.colour_labels(source)
  return np.repeat(source, 3, axis=2) if config.task == 'sketch' else source
