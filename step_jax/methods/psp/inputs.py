"""Inputs and targets of the encoder for each task."""

from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from step_jax import data, files
from step_jax.data import augment, pipeline
from step_jax.data.labels import Labels
from step_jax.errors import DataError
from step_jax.infer import reading
from step_jax.methods.psp import transforms


def roles(config: ml_collections.ConfigDict, opened: data.PairSet) -> dict[str, str]:
  """Role (`source`, `target`) -> side of an example; most tasks read the target itself."""
  of = data.roles(opened, config.data.direction)
  own = config.task in ('encode', 'frontalize', 'super_resolution')
  source = 'labels' if config.task == 'segmentation' else 'target' if own else 'source'
  return {'source': of[source], 'target': of['target']}


def prepare(config: ml_collections.ConfigDict, source: np.ndarray, factor: int = 0) -> np.ndarray:
  """Converts an image to the input of the encoder.

  Args:
    config: configuration of the stage.
    source: uint8 `[H, W, 3]`, for `sketch` also `[H, W, 1]`; for `segmentation` classes `[H, W]`.
    factor: factor by which it is reduced and enlarged again; 0: not at all.

  Returns:
    uint8 `[S, S, 3]` for the encoder's size S; `[S, S, 1]` for `sketch`, `[S, S]` of classes for
    `segmentation`.

  Raises:
    DataError: a label map has an unknown class, or the input is not a label map.
  """
  size = config.model.encoder_size
  if config.task == 'segmentation':
    if source.ndim != 2:
      raise DataError('this encoder reads label maps, not images: give a code, or --style-run')
    transforms.check_labels(source, config.data.classes, 'a label map')
    return transforms.resize_labels(source, size)
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
  mirror: np.ndarray,
) -> dict[str, np.ndarray]:
  """A random view of an example, `{'source', 'target'}`; see `prepare` and `augment.augment`."""
  settings = config.data
  images = {role: example[side] for role, side in side_of.items()}
  apart = config.task == 'frontalize' and settings.flip
  images = augment.augment(images, rng, settings.crop, (), settings.flip, mirror)
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
  opened: data.PairSet,
  split: str,
  limit: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Examples of a split in order and unmirrored, `{'source', 'target'}`; see `prepare`.

  Super-resolution uses its factors in turn.
  """
  examples = pipeline.eval_examples(
    opened.split(split), roles(config, opened), eval_crop(config), limit
  )
  factors = config.data.factors if config.task == 'super_resolution' else (0,)
  for i, example in enumerate(examples):
    source = prepare(config, example['source'], factors[i % len(factors)])
    yield {'source': source, 'target': example['target']}


def read(run: Any, path: files.Path, half: str, resize: int) -> tuple[np.ndarray, np.ndarray]:
  """Reads an input file of a run; returns the input of `Run.translate` and an image to display.

  Args:
    run: the run.
    path: an image, or a label map for `segmentation`.
    half, resize: see `reading.read_image`; label maps keep their size.

  Raises:
    DataError: the file cannot be read, or `half` is given for a label map.
  """
  if run.config.task != 'segmentation':
    image = reading.read_image(path, half, resize)
    return image, image
  if half:
    raise DataError(f'{path}: label maps are separate files: omit --side-by-side')
  labels = Labels.of(run.config.data).read(path)
  return labels, transforms.colour_labels(labels)


def shown(config: ml_collections.ConfigDict, source: np.ndarray) -> np.ndarray:
  """Converts an input of the encoder to an image for display, uint8 `[S, S, 3]`."""
  if config.task == 'segmentation':
    return transforms.colour_labels(source)
  return np.repeat(source, 3, axis=2) if config.task == 'sketch' else source
