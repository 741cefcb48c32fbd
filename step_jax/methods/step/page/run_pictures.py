"""Inputs and styles from the data set of a run, for the user to choose from."""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np
from PIL import Image

from step_jax import data
from step_jax.data import contents, pairs, pipeline
from step_jax.errors import DataError
from step_jax.methods.step import run as step_run

_THUMBNAIL = 160


@dataclasses.dataclass(frozen=True)
class RunPictures:
  """Images of the data set of a run.

  Attributes:
    inputs: sources of held-out pairs, uint8 `[H, W, 3]` each; empty if the data is missing.
    codes: style codes of training images, float32 `[N, Z]`.
    names: names of the N styles.
    thumbnails: thumbnails of the N images, uint8 `[h, w, 3]` each; empty if the data is missing.
    problem: why images are missing; empty if they are not.
  """

  inputs: Sequence[np.ndarray]
  codes: np.ndarray
  names: Sequence[str]
  thumbnails: Sequence[np.ndarray]
  problem: str = ''


def load(
  translator: step_run.Translator, inputs: int = 12, styles: int = 400, encoded: int = 64
) -> RunPictures:
  """Reads inputs and styles of a run.

  Args:
    translator: the run.
    inputs: maximum number of sources.
    styles: maximum number of styles; a fixed random subset is used if there are more.
    encoded: the same limit if the styles must be encoded first, because the run has not stored
      them (the mapper stage does).
  """
  try:
    return _with_pictures(translator, inputs, styles, encoded)
  except DataError as error:
    codes = translator.codes
    if codes is None:
      codes = np.zeros((0, translator.config.model.z_dim), np.float32)
    chosen = _some(len(codes), styles)
    names = [f'style {i}' for i in chosen]
    return RunPictures([], codes[chosen], names, [], f'The images of the run are missing: {error}')


def _with_pictures(translator, inputs: int, styles: int, encoded: int) -> RunPictures:
  config = translator.config
  pair_set = contents.open_held_out(translator.folder, config.data)
  source, target = data.sides(pair_set, config.data.direction)
  crop = config.data.eval_crop
  sources = pipeline.eval_examples(pair_set.split('val'), {'source': source}, crop, inputs)
  train = pair_set.split('train')
  stored = translator.codes
  if stored is not None and len(stored) != len(train):
    raise DataError(
      f'{pair_set.folder}: has {len(train)} training pictures, the run was trained on {len(stored)}'
    )
  chosen = _some(len(train), styles if stored is not None else encoded)
  pictures = [_picture(train, int(i), target, crop) for i in chosen]
  codes = stored[chosen] if stored is not None else _encode(translator, pictures)
  names = [f'{i}: {train[int(i)]["name"]}' for i in chosen]
  thumbnails = [thumbnail(picture) for picture in pictures]
  return RunPictures([example['source'] for example in sources], codes, names, thumbnails)


def _some(count: int, limit: int) -> np.ndarray:
  """A fixed random subset of at most `limit` indices below `count`, sorted."""
  return np.sort(np.random.default_rng(0).permutation(count)[:limit])


def _picture(split: pairs.PairSplit, index: int, side: str, crop: tuple[int, int]) -> np.ndarray:
  example: Mapping[str, np.ndarray] = next(
    pipeline.eval_examples(split, {'style': side}, crop, index + 1, index)
  )
  return example['style']


def _encode(translator: step_run.Translator, pictures: Sequence[np.ndarray]) -> np.ndarray:
  """Codes `[N, Z]` of images that may differ in size."""
  return np.stack([translator.encode(picture) for picture in pictures])


def thumbnail(picture: np.ndarray, side: int = _THUMBNAIL) -> np.ndarray:
  """Scales an image, uint8 `[H, W, 3]`, down so that no side is longer than `side`."""
  image = Image.fromarray(picture)
  image.thumbnail((side, side))
  return np.asarray(image)
