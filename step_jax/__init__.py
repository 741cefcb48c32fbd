"""step_jax: multi-modal image-to-image translation in JAX.

run = step_jax.load('runs/mine')
z = run.encode(style)                      # uint8 [H, W, 3] -> [Z]
image = run.translate(source, z)           # uint8 [H, W, 3]
images = run.sample(source, count=8)       # uint8 [8, H, W, 3]
"""

__version__ = '0.1.0'
__all__ = ['UserError', 'load']


def __getattr__(name: str):
  """Imports public names on first use, to keep `import step_jax` fast."""
  if name == 'load':
    from step_jax import methods

    return methods.load
  if name == 'UserError':
    from step_jax.errors import UserError

    return UserError
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
