"""Scores of many pictures from scores of batches."""

from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np


def collect(
  score: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]],
  batches: Iterable[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  """Scores of all pictures, in their order.

  Args:
    score: `batch -> {name: [B]}`.
    batches: as `data.pipeline.eval_batches` makes them; fillers are left out.

  Returns:
    name -> `[number of pictures]`.
  """
  values: dict[str, list] = {}
  order = []
  for batch in batches:
    real = batch['mask'] > 0
    for name, value in jax.device_get(score(batch)).items():
      values.setdefault(name, []).append(np.asarray(value)[real])
    order.append(batch['index'][real])
  rank = np.argsort(np.concatenate(order))
  return {name: np.concatenate(parts)[rank] for name, parts in values.items()}
