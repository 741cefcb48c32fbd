"""Linear probe: how well codes of regions predict the known colours of `swatches`."""

from collections.abc import Sequence

import numpy as np

from step_jax.data import swatches
from step_jax.methods.superstylenet.codes import RegionCodes

_RIDGE = 1e-3


def palette_of(name: str, regional: bool) -> np.ndarray:
  """The colour of each class in an example: float32 `[5, 3]`, RGB in [0, 1].

  Args:
    name: name of the example.
    regional: whether it belongs to `swatches_regional`.
  """
  if not regional:
    return swatches.palette(swatches.style_of(name))
  styles = swatches.region_styles_of(name)
  return np.stack([swatches.palette(style)[i] for i, style in enumerate(styles)])


def r_squared(
  train: RegionCodes,
  train_names: Sequence[str],
  test: RegionCodes,
  names: Sequence[str],
  regional: bool,
) -> float:
  """Fraction of the variance of colours that a linear map of codes explains, mean over R, G, B.

  Args:
    train, train_names: codes `[M, 5, 512]` and names of the images for fitting the map.
    test, names: codes `[N, 5, 512]` and names of the images for testing it.
    regional: see `palette_of`.
  """
  inputs, colours = _regions(train, train_names, regional)
  test_inputs, truth = _regions(test, names, regional)
  mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-12
  inputs, test_inputs = (inputs - mean) / deviation, (test_inputs - mean) / deviation
  centre = colours.mean(axis=0)
  gram = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(inputs.shape[1])
  weights = np.linalg.solve(gram, inputs.T @ (colours - centre))
  error = np.sum(np.square(truth - centre - test_inputs @ weights), axis=0)
  return float(np.mean(1 - error / np.sum(np.square(truth - truth.mean(axis=0)), axis=0)))


def _regions(codes, names, regional) -> tuple[np.ndarray, np.ndarray]:
  """Codes and colours of all regions that have a code."""
  colours = np.stack([palette_of(name, regional) for name in names])
  return codes.codes[codes.valid].astype(np.float64), colours[codes.valid].astype(np.float64)
