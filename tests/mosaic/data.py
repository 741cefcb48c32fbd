"""Images of flat labels with their label maps, in the layout of SPADE-like projects."""

import numpy as np
from PIL import Image

LABELS = 8
SIDE = 16


def write(folder, train=24, val=5):
  """`{train,val}/{images,labels}`: PNG files; label maps hold class numbers."""
  for split, count in (('train', train), ('val', val)):
    for name in ('images', 'labels'):
      (folder / split / name).mkdir(parents=True)
    for i in range(count):
      rng = np.random.default_rng([split == 'val', i])
      labels = rng.integers(0, LABELS, (4, 4)).repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
      colours = rng.integers(0, 256, (LABELS, 3))
      image = np.clip(colours[labels] + rng.normal(0, 8, (SIDE, SIDE, 3)), 0, 255)
      for name, array in (('images', image), ('labels', labels)):
        Image.fromarray(array.astype(np.uint8)).save(folder / split / name / f'{i:02d}.png')
  return folder
