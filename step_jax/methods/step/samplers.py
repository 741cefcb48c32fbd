"""Samplers map standard normal noise to style codes: the mapper, or a Gaussian."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax.methods import exported
from step_jax.methods.step import models as nets
from step_jax.methods.step import networks
from step_jax.methods.step.steps import mapper as mapper_lib

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A map from standard normal noise to style codes.

  Training, `translate`, the demo, evaluation and exports all use this class.

  Attributes:
    name: `mapper` or `gaussian`.
    z_dim: length of a style code.
    params: first argument of `apply`, a tree of arrays.
    apply: `(params, noise [N, Z]) -> codes [N, Z]`; a pure function of NumPy or JAX arrays.
  """

  name: str
  z_dim: int
  params: Mapping[str, Any]
  apply: Callable[[Mapping[str, Any], Array], Array]

  def draw(self, count: int, seed: int) -> np.ndarray:
    """Samples style codes, float32 `[count, Z]`; the same seed gives the same codes."""
    noise = np.random.default_rng(seed).standard_normal((count, self.z_dim))
    return np.asarray(self.apply(self.params, noise), np.float32)


def covariance(codes: np.ndarray) -> np.ndarray:
  """Unbiased covariance of codes `[N, Z]`, float64 `[Z, Z]`; zeros for a single code."""
  deviations = np.asarray(codes, np.float64) - codes.mean(axis=0, dtype=np.float64)
  return deviations.T @ deviations / max(len(codes) - 1, 1)


def gaussian(codes: np.ndarray) -> Sampler:
  """The normal distribution with the mean and covariance of codes `[N, Z]`, N at least 1."""
  vectors, variances, _ = np.linalg.svd(covariance(codes))
  params = {
    'mean': codes.mean(axis=0, dtype=np.float64),
    'factor': (vectors * np.sqrt(variances)).T,
  }
  apply = lambda params, noise: params['mean'] + noise @ params['factor']
  return Sampler('gaussian', codes.shape[1], params, apply)


def mapper(config: ml_collections.ConfigDict, params: Mapping, codes: np.ndarray) -> Sampler:
  """A mapper as a sampler.

  Args:
    config: configuration of the mapper stage.
    params: trained parameters, in the units of `steps.mapper.standardization`.
    codes: all training codes `[N, Z]`, which determine these units.
  """
  module = networks.mapper(config)
  params = mapper_lib.in_code_units(params, *mapper_lib.standardization(config, codes))
  apply = lambda params, noise: module.apply({'params': params}, noise)
  return Sampler('mapper', config.model.z_dim, params, apply)


def stored_mapper(z_dim: int, params: Mapping) -> Sampler:
  """Creates a mapper from the parameters of `mapper(...)`, which determine its widths.

  Raises:
    ValueError, KeyError: these are not parameters of a mapper.
  """
  hidden = [params[f'dense{i}']['kernel'].shape[1] for i in range(len(params) - 1)]
  module = nets.Mapper(z_dim, hidden)
  init = lambda: module.init(jax.random.key(0), jnp.zeros((1, z_dim)))['params']
  params = exported.fit(params, jax.eval_shape(init))
  return Sampler('mapper', z_dim, params, lambda p, noise: module.apply({'params': p}, noise))


def mapper_wins(scores: Mapping[str, float]) -> bool:
  """Whether the mapper samples better codes than the Gaussian, by the scores of its stage."""
  return scores['val_mapper_energy'] < scores['val_gaussian_energy']
