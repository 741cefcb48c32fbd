"""Computes style vectors of a data set and writes them to disk."""

from collections.abc import Callable, Iterable
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from step_jax import files, images, untrusted
from step_jax.losses import gram_matrix, style_vector


class VectorFile:
  """float32 `[N, D]` on disk; rows are read when indexed and not kept in memory."""

  def __init__(self, path: str | pathlib.Path):
    self._path = path
    self.shape: tuple[int, int] = np.load(path, mmap_mode='r').shape

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, key) -> np.ndarray:
    return np.array(np.load(self._path, mmap_mode='r')[key])


def style_vectors(
  module,
  params,
  batches: Callable[[int], Iterable[dict]],
  count: int,
  folder: str | pathlib.Path,
  projection: int = 0,
  tap_weights: str = 'equal',
) -> VectorFile:
  """Gram statistics of every image, packed by `losses.style_vector`.

  Args:
    module: feature network (`step_jax.models.features`) whose taps are compared.
    params: its parameters.
    batches: number of an image -> batches from that image on: `{'target': uint8 [B, H, W, 3],
      'index': [B], 'mask': [B]}`, from `data.pipeline.eval_batches`, with indices from 0.
    count: total number of images.
    folder: folder for the vectors, which can be larger than memory. An interrupted call is resumed
      from it, so it must belong to the same images and arguments.
    projection: length that vectors are reduced to by `project`; 0: no reduction.
    tap_weights: one of `losses.TAP_WEIGHTS`.

  Returns:
    float32 `[count, D]`, row `index` for the image with that index.
  """
  folder = pathlib.Path(folder)
  path, done_path = folder / 'vectors.npy', folder / 'done.npy'
  width = _width(module, params)
  shuffle = make_shuffle(width) if projection else None
  shape = (count, projection or width)

  @jax.jit
  def extract(params, target, shuffle):
    with jax.default_matmul_precision('highest'):
      taps = module.apply({'params': params}, images.to_float(target))
    grams = {tap: gram_matrix(features) for tap, features in taps.items()}
    vectors = style_vector(grams, tap_weights)
    return project(vectors, shuffle, projection) if projection else vectors

  if path.is_file() and done_path.is_file():
    remedy = f'remove {folder}, and re-run the command to start over'
    done = untrusted.read_arrays(done_path, remedy)['']
    if done.shape != (count,) or done.dtype != bool:
      raise untrusted.damaged(done_path, f'not of {count} pictures', remedy)
    if untrusted.npy_type(path, remedy) != (shape, np.float32):
      raise untrusted.damaged(path, f'not {count} vectors', remedy)
  else:
    done = np.zeros(count, bool)
    np.lib.format.open_memmap(path, 'w+', np.float32, shape)
  start = count if done.all() else int(np.argmin(done))
  with tqdm.tqdm(
    total=count, initial=start, desc='style features', unit='pictures', disable=None
  ) as progress:
    for batch in batches(start) if start < count else ():
      rows = np.asarray(extract(params, batch['target'], shuffle))
      real = batch['mask'] > 0
      index = start + batch['index'][real]
      # Opened again for each batch, so that written data does not stay in memory.
      vectors = np.lib.format.open_memmap(path, 'r+')
      vectors[index] = rows[real]
      vectors.flush()
      done[index] = True
      files.write_array(done_path, done)
      progress.update(int(real.sum()))
  return VectorFile(path)


def make_shuffle(width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Random order and random signs of `width` entries, int32 and float32 `[width]`."""
  rng = np.random.default_rng(seed)
  return rng.permutation(width).astype(np.int32), rng.choice(np.float32([-1, 1]), width)


def project(vectors: jax.Array, shuffle: tuple[np.ndarray, np.ndarray], size: int) -> jax.Array:
  """Shortens vectors and approximately keeps their distances: `[B, D] -> [B, size]`.

  Entries are shuffled, multiplied by random signs and summed in `size` groups. Squared distances
  are unbiased, with a relative standard deviation of at most about `sqrt(2 / size)` (count sketch,
  Charikar et al. 2002).
  """
  order, signs = shuffle
  shuffled = (vectors * signs)[:, order]
  padded = jnp.pad(shuffled, ((0, 0), (0, -vectors.shape[1] % size)))
  return padded.reshape(len(vectors), -1, size).sum(axis=1)


def _width(module, params) -> int:
  """Length of a style vector."""
  picture = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  taps = jax.eval_shape(lambda p, x: module.apply({'params': p}, x), params, picture)
  return sum(tap.shape[-1] * (tap.shape[-1] + 1) // 2 for tap in taps.values())
