"""Style vectors of a whole data set, streamed to disk."""

from collections.abc import Iterable
import pathlib

import jax
import numpy as np
import tqdm

from step_jax import images
from step_jax.losses import gram_matrix, style_vector


def style_vectors(
  module, params, batches: Iterable[dict], count: int, out: str | pathlib.Path
) -> np.ndarray:
  """Gram statistics of every picture, packed by `losses.style_vector`.

  Args:
    module: feature net (`step_jax.models.features`) whose taps are compared.
    params: its parameters.
    batches: `{'target': uint8 [B, H, W, 3], 'index': [B], 'mask': [B]}`, as
      `data.pipeline.eval_batches` makes them.
    count: number of pictures in all.
    out: file for the vectors; overwritten. They can be larger than memory.

  Returns:
    float32 `[count, D]`, memory-mapped, row `index` for the picture of that index.
  """

  @jax.jit
  def extract(params, target):
    with jax.default_matmul_precision('highest'):
      taps = module.apply({'params': params}, images.to_float(target))
    return style_vector({tap: gram_matrix(features) for tap, features in taps.items()})

  vectors = None
  with tqdm.tqdm(total=count, desc='style features', unit='pictures', disable=None) as progress:
    for batch in batches:
      rows = np.asarray(extract(params, batch['target']))
      if vectors is None:
        vectors = np.lib.format.open_memmap(out, 'w+', np.float32, (count, rows.shape[1]))
      real = batch['mask'] > 0
      vectors[batch['index'][real]] = rows[real]
      progress.update(int(real.sum()))
  return vectors
