"""An image generated in tiles is the same as the whole image."""

import jax
import numpy as np
import pytest

from step_jax.methods.superstylenet import drawing, tiles
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.generator import Generator

LABELS, SIZE = 5, 6


def make(upsamplings):
  """A narrow generator with random parameters, and a code for each of its labels."""
  module = Generator(
    num_labels=LABELS, style_size=SIZE, width=1, num_upsamplings=upsamplings, label_width=4,
    spade_width=4,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  code = rng.random((LABELS, SIZE), np.float32)
  example = layout(64, 64)[None].astype(np.int32), code[None]
  variables = module.init(jax.random.key(0), *example)
  # So that noise has an effect.
  moved = lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
  params = jax.tree.map(moved, variables['params'])
  for _ in range(5):
    _, stats = module.apply(
      {**variables, 'params': params}, *example, train=True, mutable=['batch_stats', 'spectral']
    )
    variables = {**stats, 'params': params}
  return module, variables, code


def layout(height, width):
  rng = np.random.default_rng(1)
  blocks = rng.integers(0, LABELS, (height // 7 + 1, width // 7 + 1), dtype=np.uint8)
  return blocks.repeat(7, axis=0).repeat(7, axis=1)[:height, :width]


@pytest.mark.parametrize(
  'upsamplings, height, width, tile, seed',
  [(1, 203, 170, 24, None), (3, 303, 270, 40, 7)],
)
def test_tiles_give_the_whole_image(upsamplings, height, width, tile, seed, monkeypatch):
  module, variables, code = make(upsamplings)
  labels, shapes, generate = layout(height, width), set(), tiles._draw

  def record(*args, **maps):
    shapes.add(maps['pyramid']['up_3'].shape)
    return generate(*args, **maps)

  monkeypatch.setattr(tiles, '_draw', record)
  codes = RegionCodes(code, np.ones(LABELS, bool))
  whole = drawing.Drawer(module, variables).draw(labels, codes, seed).astype(int)
  image = tiles.draw(module, variables, labels, code, tile, seed)
  assert image.shape == (height, width, 3) and image.dtype == np.uint8
  assert whole.std() > 5 and np.mean((whole > 0) & (whole < 255)) > 0.9  # Not saturated.
  assert np.abs(image - whole).max() <= 1 and np.abs(image - whole).mean() < 0.01
  # No window is the whole map.
  assert all(shape[1] < height and shape[2] < width for shape in shapes)
  # Control: the overlap is needed.
  monkeypatch.setattr(tiles, 'halo', lambda generator: 1)
  assert np.abs(tiles.draw(module, variables, labels, code, tile, seed) - whole).max() > 1
