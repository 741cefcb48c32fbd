"""Spectral normalisation (Miyato et al. 2018)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

_EPSILON = 1e-12


def spectral_norm(kernel: jax.Array, iterations: int = 8) -> jax.Array:
  """Divides a kernel `[..., in, out]` by an estimate of its largest singular value.

  Unlike `SpectralNorm`, it has no state: every call makes a few steps of the power iteration, from
  the sum of the rows. No gradient flows through the singular vectors.
  """
  matrix = kernel.reshape(-1, kernel.shape[-1])
  fixed = jax.lax.stop_gradient(matrix)
  u = _unit(jnp.sum(fixed, axis=0))
  for _ in range(iterations):
    v = _unit(_product(fixed, u))
    u = _unit(_product(v, fixed))
  return kernel / jnp.maximum(_product(_product(v, matrix), u), _EPSILON)


class SpectralNorm(nn.Module):
  """Divides a kernel by an estimate of its largest singular value (Miyato et al. 2018).

  Same as `torch.nn.utils.spectral_norm`: in training, one step of the power iteration updates the
  two singular vectors, without gradients; evaluation does not change them. (Flax's layer differs in
  the iteration and in the stored variables.)

  The vectors are the variables `u`, `[out]`, and `v`, `[k * k * in]` in the order of the kernel's
  axes, of the collection `spectral`, which must be mutable in training. Takes a kernel
  `[..., in, out]` and returns one of the same shape.
  """

  @nn.compact
  def __call__(self, kernel: jax.Array, train: bool) -> jax.Array:
    matrix = kernel.reshape(-1, kernel.shape[-1])

    def random_direction(size):
      return _unit(jax.random.normal(self.make_rng('params'), (size,)))

    u = self.variable('spectral', 'u', random_direction, matrix.shape[1])
    v = self.variable('spectral', 'v', random_direction, matrix.shape[0])
    if train and not self.is_initializing():
      fixed = jax.lax.stop_gradient(matrix)
      v.value = _unit(_product(fixed, u.value))
      u.value = _unit(_product(v.value, fixed))
    sigma = _product(_product(v.value, matrix), u.value)
    return kernel / sigma


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _unit(x: jax.Array) -> jax.Array:
  return x / jnp.maximum(jnp.linalg.norm(x), _EPSILON)
