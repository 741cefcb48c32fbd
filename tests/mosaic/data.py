"""Images of flat labels: how they are made, and how their label maps are read."""

import numpy as np
from PIL import Image

from step_jax import data

LABELS = 8
SIDE = 16


def write(folder, train=24, val=5):
  """A folder of pairs: a grey label map on the left, the image on the right."""
  for split, count in (('train', train), ('val', val)):
    (folder / split).mkdir(parents=True)
    for i in range(count):
      rng = np.random.default_rng([split == 'val', i])
      labels = rng.integers(0, LABELS, (4, 4)).repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
      colours = rng.integers(0, 256, (LABELS, 3))
      noise = rng.normal(0, 8, (SIDE, SIDE, 3))
      image = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
      grey = np.repeat((labels * 32).astype(np.uint8)[..., None], 3, axis=2)
      Image.fromarray(np.concatenate([grey, image], axis=1)).save(folder / split / f'{i:02d}.png')
  return folder


def read(found, config, example):
  """`labels`, uint8 `[H, W]`, and `target`, uint8 `[H, W, 3]`."""
  source, target = data.sides(found, config.data.direction)
  return {'target': example[target], 'labels': example[source][..., 0] // 32}
