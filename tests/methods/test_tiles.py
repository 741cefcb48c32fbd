"""Translation in tiles gives the same as translation of the whole image."""

import jax
import numpy as np
import pytest

from step_jax.data import pictures
from step_jax.errors import ConfigError
from step_jax.infer import options
from step_jax.methods.step import functions, tiles
from step_jax.methods.step import models as nets
from step_jax.methods.step.networks import init_generator

SEEN = 40


@pytest.fixture(scope='module')
def generator():
  """A narrow generator with random scales and shifts of norms."""
  module = nets.Generator(width=2, remat=True)
  params = init_generator(module, jax.random.key(0), 3)
  rng = np.random.default_rng(0)
  moved = lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32)
  return module, {'generator': jax.tree.map(moved, params)}


def image(height, width):
  """Noise on a gradient, so that statistics differ between parts."""
  rng = np.random.default_rng(1)
  coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
  fine = rng.integers(0, 64, (height, width, 3))
  slope = np.linspace(0.1, 0.7, width)[:, None]
  return (pictures.resize(coarse, (height, width)) * slope + fine).astype(np.uint8)


def difference(a, b):
  return np.abs(a.astype(int) - b).mean()


def test_tiles_give_the_whole_image(generator, monkeypatch):
  module, params = generator
  source, z = image(203, 170), np.array([0.5, -1, 2], np.float32)
  windows, visit = set(), tiles._visit

  def record(*args):
    windows.add(args[3].shape)
    return visit(*args)

  monkeypatch.setattr(tiles, '_visit', record)
  result = tiles.translate(module, params, source, z, 60)
  assert windows == {(1, 144, 144, 3)}
  generate = jax.jit(lambda *args: functions.generate(module, *args))
  whole = np.asarray(generate(params, source[None], z[None]))[0]
  assert result.shape == source.shape and result.dtype == np.uint8
  assert difference(result, whole) < 0.01 and np.abs(result.astype(int) - whole).max() <= 1
  # Statistics of a single tile would give another image.
  apart = np.asarray(generate(params, source[None, :64, :64], z[None]))[0]
  assert difference(apart, whole[:64, :64]) > 1


def test_tiles_overlap_by_the_receptive_field(generator, monkeypatch):
  module, params = generator
  monkeypatch.setattr(tiles, '_HALO', SEEN + 24)
  rng, visit = np.random.default_rng(2), tiles._visit
  reached = []

  def scrambled(array, cores, reach):
    """Changes pixels outside of the receptive field of a tile."""
    scale = 160 // array.shape[1]
    keep = [slice((a - reach) // scale, (b + reach) // scale) for a, b in cores]
    other = rng.permuted(array, axis=1)
    other[:, *keep] = array[:, *keep]
    return other

  def check(module, blocks, params, window, z, statistics, kept, cores):
    results = [visit(module, blocks, params, window, z, statistics, kept, cores)]
    inside = all(64 <= a and b + 64 <= 160 for a, b in cores)
    for reach in (SEEN, 8) if inside else ():
      changed = [None if x is None else scrambled(x, cores, reach) for x in (window, kept)]
      results.append(visit(module, blocks, params, changed[0], z, statistics, changed[1], cores))
    if inside:
      of_core = []
      for moments, output in results:
        leaves = [] if moments is None else [*moments]
        if output is not None:
          scale = 160 // output.shape[1]
          leaves.append(output[:, *(slice(a // scale, b // scale) for a, b in cores)])
        of_core.append(np.concatenate([np.ravel(leaf) for leaf in leaves]))
      np.testing.assert_array_equal(of_core[0], of_core[1])
      reached.append(not np.array_equal(of_core[0], of_core[2]))
    return results[0]

  monkeypatch.setattr(tiles, '_visit', check)
  tiles.translate(module, params, image(192, 192), np.zeros(3, np.float32), 32)
  # Control: most passes do depend on more than 8 px around a tile.
  assert sum(reached) > len(reached) / 2


def test_only_methods_of_any_size_have_tiles():
  with pytest.raises(ConfigError, match='--tile: is not an option of psp runs, but of step, super'):
    options.Given('psp', 'translate', {'tile': 512})
  for method in ('step', 'superstylenet'):
    given = options.Given(method, 'translate', {'tile': 512})
    assert given.of('translate') == {'tile': 512}
