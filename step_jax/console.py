"""Entry point of the command `step-jax`; reports missing packages in one line."""

import sys


def main() -> int:
  """Runs `step_jax.cli.main`; returns the exit status."""
  try:
    from step_jax import cli

    return cli.main()
  except ImportError as error:  # A package is missing, or too old.
    if (error.name or '').startswith('step_jax'):
      raise
    print(f'step-jax: {error}: run `pip install -e .` in the checkout', file=sys.stderr)
    return 2
