"""The store of converted weights: `$STEP_JAX_WEIGHTS`, or `~/.cache/step_jax/weights`.

SqueezeNet 1.1 and its LPIPS heads come with the package. They are used if the store does not have
them.
"""

import pathlib

from step_jax import places
from step_jax.errors import WeightsError
from step_jax.models.features import FEATURE_NETS
from step_jax.weights import nets

BUNDLED = pathlib.Path(__file__).with_name('bundled')
# The feature network that comes with the package.
BUNDLED_NET = 'squeezenet1_1'


def place(name: str) -> pathlib.Path:
  """Path of a network or of heads in the store, whether the file exists or not.

  Raises:
    WeightsError: no weights have that name.
  """
  if name not in nets.NAMES:
    raise WeightsError(f'no weights are called {name!r}; there are {", ".join(nets.NAMES)}')
  return places.weights() / f'{name}.safetensors'


def find(name: str, path: str = '') -> pathlib.Path:
  """Finds the weights file of a network or of heads.

  Args:
    name: one of `nets.NAMES`.
    path: path of the file; '' looks in the store, then in the package.

  Raises:
    WeightsError: the file does not exist; the message says how to get it.
  """
  stored = place(name)
  files = [places.expand(path)] if path else [stored, BUNDLED / stored.name]
  for file in files:
    if file.is_file():
      return file
  if path:
    raise WeightsError(f'no weights file at {files[0]} for {name}; check the path')
  remedy = f'run `step-jax weights get {name}` or `step-jax weights convert FILE`'
  if name in FEATURE_NETS:
    remedy += f', or use the net of the package (--features {BUNDLED_NET})'
  raise WeightsError(f'{name} is not in {stored.parent}: {remedy}')
